// What norms, activations and rotary embeddings are told. Rows of floats, `apart` floats from one to the next.
#pragma once
#include <cstdint>

// out = weight * x / sqrt(mean(x^2) + eps), or with centred: weight * (x - mean) / sqrt(variance + eps) + bias.
// With add: of x + add, which also becomes `sum`.
struct Norm {
  const float* x = nullptr;  // [rows, width]
  const float* add = nullptr;
  float* sum = nullptr;
  const float* weight = nullptr;
  const float* bias = nullptr;  // of centred
  float* out = nullptr;         // may be x
  int64_t rows = 0, width = 0, x_apart = 0, out_apart = 0;  // those of add and sum are side by side
  float eps = 0;
  bool centred = false;
};

// out = x with the halves of every head turned against each other: x cos + (-second half, first half) sin.
struct Turn {
  const float* x = nullptr;  // [rows, heads, head_dim], heads side by side
  float* out = nullptr;      // may be x
  const float *cosines = nullptr, *sines = nullptr;  // [rows, head_dim]
  int64_t rows = 0, heads = 0, head_dim = 0, x_apart = 0, out_apart = 0;
};

// out = gelu(x), or silu(x) * y, or x + y * scale [width].
enum class Pointwise { kGelu, kSwiglu, kScaledSum };
struct Elements {
  Pointwise what = Pointwise::kGelu;
  const float *x = nullptr, *y = nullptr, *scale = nullptr;
  float* out = nullptr;  // may be x
  int64_t count = 0, width = 0;
};
