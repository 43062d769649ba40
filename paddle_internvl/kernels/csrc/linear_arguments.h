// What a matrix product is told: x W + bias, and what follows it.
#pragma once
#include <cstdint>

// How a weight's numbers are held.
enum class Kind { kFloat32, kBFloat16, kInt8, kInt4 };

// A weight [K, N] as it lies in a converted checkpoint, row after row: nothing is packed, so that a mapped file can be
// used as it is. Of int4 two rows share one: a byte holds row k in its low half and k + 1 in its high one, [K / 2, N].
// Integers q stand for q * scale + offset, with scales and offsets [groups, N]; `group` rows share one.
struct Weight {
  Kind kind = Kind::kFloat32;
  const void* data = nullptr;
  const float* scales = nullptr;   // of int8 and int4
  const float* offsets = nullptr;  // null: all zero
  int64_t K = 0, N = 0, group = 0;
  int64_t int8_activations = 0;  // of int8 and int4: products of many rows are those of int8.h
};

enum class Activation { kNone, kGelu, kSwiglu };

// out = residual + layer_scale * activation(x W + bias), each of the last four only where it is given.
// kSwiglu: silu(x W) * (x up), without bias.
struct Linear {
  Weight weight, up;
  const float* x = nullptr;  // [M, K], rows x_stride apart
  float* out = nullptr;      // [M, N], rows out_stride apart; may be the residual
  int64_t M = 0, x_stride = 0, out_stride = 0;
  const float* bias = nullptr;         // [N]
  const float* residual = nullptr;     // [M, N], rows out_stride apart
  const float* layer_scale = nullptr;  // [N]
  Activation activation = Activation::kNone;
  int64_t out_block = 0, out_block_stride = 0;  // blocks of columns of out, so many floats apart; 0: side by side
  bool rounded = false;  // few rows of x are rounded to bfloat16 where tiles multiply them
  const float* x_tiles = nullptr;  // of many rows, in place of x: as tiles (linear_many.h)
  float* out_tiles = nullptr;      // and in place of out, without a residual
};
