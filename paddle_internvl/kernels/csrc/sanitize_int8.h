// The sanitizer's program: products with int8 activations, against the definition of int8.h in loops.
#pragma once
#include "dispatch.h"
#include "sanitize.h"

// Whole numbers of a row, and its scale.
inline float int8_row(const float* x, int64_t width, std::vector<int>& out) {
  float top = 1e-30f;
  for (int64_t k = 0; k < width; k++) top = std::fmax(top, std::fabs(x[k]));
  out.resize(width);
  for (int64_t k = 0; k < width; k++) out[k] = int(std::nearbyint(x[k] * (127.f / top)));
  return top / 127.f;
}

// A column of a weight as the products take it, and its scale.
inline float int8_column(const Weight& w, int64_t n, std::vector<int>& out) {
  const bool nibbles = w.kind == Kind::kInt4;
  const int64_t groups = (w.K + w.group - 1) / w.group, places = nibbles ? 10 : 14;
  out.resize(w.K);
  float top = 1e-30f;
  for (int64_t g = 0; g < groups; g++) {
    const float s = w.scales[g * w.N + n], o = w.offsets ? w.offsets[g * w.N + n] : 0;
    const float low = std::fabs((nibbles ? -8 : -128) * s + o), high = std::fabs((nibbles ? 7 : 127) * s + o);
    top = std::fmax(top, w.offsets ? std::fmax(low, high) : std::fabs(s));
  }
  const bool as_it_is = groups == 1 && !w.offsets;
  const float scale = as_it_is ? w.scales[n] : w.offsets ? top / 127 : nibbles ? top / 16 : top;
  for (int64_t k = 0; k < w.K; k++) {
    const auto* bytes = (const uint8_t*)w.data;
    const int q = nibbles ? ((bytes[k / 2 * w.N + n] >> k % 2 * 4 & 15) ^ 8) - 8 : (int8_t)bytes[k * w.N + n];
    out[k] = q;
    if (as_it_is) continue;
    const int64_t at = k / w.group * w.N + n;
    const int times = int(std::nearbyint(w.scales[at] / scale * float(1 << places)));
    out[k] = (q * (1 << (15 - places)) * times + 16384) >> 15;
    if (w.offsets) out[k] += int(std::nearbyint(w.offsets[at] / scale));
    out[k] = out[k] < -128 ? -128 : out[k] > 127 ? 127 : out[k];
  }
  return scale;
}

// Held: of sanitize.cc.
template <class Held>
void int8_linear_of(const Held& w, const Held& up, int64_t M, Activation activation, std::mt19937& numbers) {
  const int64_t K = w.weight.K, N = w.weight.N;
  const auto x = random_floats(M * K, numbers), bias = random_floats(N, numbers), residual = random_floats(M * N, numbers);
  Exact<float> out(M * N);
  const Linear a = linear_of(w.weight, up.weight, M, activation, x, bias, residual, out);
  int8_kernels().linear(a);
  std::vector<std::vector<int>> rows(M);
  std::vector<float> scales(M);
  for (int64_t m = 0; m < M; m++) scales[m] = int8_row(x.at() + m * K, K, rows[m]);
  std::vector<int> column[2];
  for (int64_t n = 0; n < N; n++) {
    const float scale[2] = {int8_column(w.weight, n, column[0]), int8_column(up.weight, n, column[1])};
    for (int64_t m = 0; m < M; m++) {
      double y[2];
      for (int part = 0; part < 2; part++) {
        int64_t sum = 0;
        for (int64_t k = 0; k < K; k++) sum += rows[m][k] * column[part][k];
        y[part] = double(sum) * scales[m] * scale[part];
      }
      if (a.bias) y[0] += bias[n];
      const double size = 1 + std::fabs(y[0]) * (1 + std::fabs(y[1]));
      if (activation == Activation::kGelu) y[0] *= 0.5 * (1 + std::erf(y[0] / std::sqrt(2.0)));
      if (activation == Activation::kSwiglu) y[0] = y[0] / (1 + std::exp(-y[0])) * y[1];
      same(out[m * N + n], residual[m * N + n] + y[0], 2e-6 * size, "int8 linear");
    }
  }
}
