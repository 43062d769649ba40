// What a matrix product is told: x W + bias, and what follows it.
#pragma once
#include <cstdint>

// How a weight's numbers are held.
enum class Kind { kFloat32, kBFloat16, kInt8, kInt4 };

// A weight [K, N] in panels of 32 columns: [ceil(N / 32)][K][32], columns beyond N zero. Of int4 two rows k, k + 1 share
// a byte, the even one in its low half: [ceil(N / 32)][ceil(K / 2)][32].
// Integers q stand for q * scale + offset, with scales and offsets [ceil(N / 32)][groups][32]; `group` rows share one.
struct Weight {
  Kind kind = Kind::kFloat32;
  const void* panels = nullptr;
  const float* scales = nullptr;   // of int8 and int4
  const float* offsets = nullptr;  // null: all zero
  int64_t K = 0, N = 0, group = 0;
};

enum class Activation { kNone, kGelu, kSwiglu };

// out = residual + layer_scale * activation(x W + bias), each of the last four only where it is given.
// kSwiglu: panels take turns, gate and up; N counts both, and silu(gate) * up has N / 2 columns, a multiple of 32 or
// filled up to it: columns beyond `columns` are not written.
struct Linear {
  Weight weight;
  const float* x = nullptr;  // [M, K], rows x_stride apart
  float* out = nullptr;      // [M, columns], rows out_stride apart; may be the residual
  int64_t M = 0, x_stride = 0, out_stride = 0;
  int64_t columns = 0;  // of the result
  const float* bias = nullptr;         // [N], of kSwiglu [panels * 32] in the panels' order
  const float* residual = nullptr;     // [M, columns], rows out_stride apart
  const float* layer_scale = nullptr;  // [columns]
  Activation activation = Activation::kNone;
};
