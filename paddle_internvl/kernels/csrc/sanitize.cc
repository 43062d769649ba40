// A program of its own for `make sanitize`: every kernel on odd shapes, under AddressSanitizer and UBSan, against plain
// loops in double. Buffers are exactly as large as they must be, so that a read behind them is caught.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <stdexcept>

#include "dispatch.h"
#include "sanitize.h"
#include "sanitize_attention.h"
#include "sanitize_layers.h"

namespace {

std::mt19937 numbers(0);

// Weights of one kind: what is stored, and what it means.
struct Held {
  Weight weight;
  Exact<char> data;
  Exact<float> scales, offsets;
  std::vector<double> means;
};

Held held(Kind kind, int64_t K, int64_t N, int64_t group) {
  Held h;
  const bool whole = kind == Kind::kInt8 || kind == Kind::kInt4;
  const int64_t groups = whole ? (K + group - 1) / group : 0;
  const int64_t bytes = kind == Kind::kFloat32 ? 4 * K * N : kind == Kind::kBFloat16 ? 2 * K * N
                        : kind == Kind::kInt8  ? K * N     : (K + 1) / 2 * N;
  h.data = Exact<char>(bytes);
  h.scales = random_floats(groups * N, numbers);
  h.offsets = random_floats(groups * N, numbers);
  h.means.resize(K * N);
  for (int64_t i = 0; i < bytes; i++) h.data[i] = 0;
  for (int64_t k = 0; k < K; k++)
    for (int64_t n = 0; n < N; n++) {
      const int64_t at = k * N + n;
      if (kind == Kind::kFloat32 || kind == Kind::kBFloat16) {
        float x = float(int(numbers() % 255) - 127) / 64;  // bfloat16 holds it
        uint32_t bits;
        memcpy(&bits, &x, 4);
        if (kind == Kind::kFloat32) memcpy(&h.data[4 * at], &x, 4);
        else h.data[2 * at] = char(bits >> 16 & 255), h.data[2 * at + 1] = char(bits >> 24);
        h.means[at] = x;
      } else {
        const int q = int(numbers() % (kind == Kind::kInt8 ? 255 : 16)) - (kind == Kind::kInt8 ? 127 : 8);
        if (kind == Kind::kInt8) h.data[at] = char(q);
        else h.data[k / 2 * N + n] = char(h.data[k / 2 * N + n] | (q & 15) << (k % 2 * 4));
        h.means[at] = double(q) * h.scales[k / group * N + n] + h.offsets[k / group * N + n];
      }
    }
  h.weight = {kind, h.data.at(), whole ? h.scales.at() : nullptr, whole ? h.offsets.at() : nullptr, K, N, group};
  return h;
}

void linear(Kind kind, int64_t M, int64_t K, int64_t N, int64_t group, Activation activation) {
  const Held w = held(kind, K, N, group), up = held(kind, K, N, group);
  const auto x = random_floats(M * K, numbers), bias = random_floats(N, numbers), scale = random_floats(N, numbers);
  const auto residual = random_floats(M * N, numbers);
  Exact<float> out(M * N);
  Linear a;
  a.weight = w.weight;
  a.x = x.at();
  a.out = out.at();
  a.M = M;
  a.x_stride = K;
  a.out_stride = N;
  a.activation = activation;
  a.residual = residual.at();
  a.layer_scale = scale.at();
  if (activation == Activation::kSwiglu) a.up = up.weight;
  else a.bias = bias.at();
  kernels().linear(a);
  for (int64_t m = 0; m < M; m++)
    for (int64_t n = 0; n < N; n++) {
      double y = a.bias ? bias[n] : 0, other = 0, size = 1;
      for (int64_t k = 0; k < K; k++) {
        y += x[m * K + k] * w.means[k * N + n];
        other += x[m * K + k] * up.means[k * N + n];
        size += std::fabs(x[m * K + k]) * (std::fabs(w.means[k * N + n]) + std::fabs(up.means[k * N + n]));
      }
      if (activation == Activation::kGelu) y *= 0.5 * (1 + std::erf(y / std::sqrt(2.0)));
      if (activation == Activation::kSwiglu) size *= 1 + std::fabs(y) + std::fabs(other), y = y / (1 + std::exp(-y)) * other;
      same(out[m * N + n], residual[m * N + n] + scale[n] * y, 4e-6 * size, "linear");
    }
}

void linears() {
  const int64_t shapes[][3] = {{1, 1, 1},   {1, 7, 33},  {2, 130, 31}, {3, 64, 70},    {8, 33, 15},
                               {9, 65, 33}, {15, 7, 64}, {43, 31, 97}, {17, 1100, 40}, {90, 40, 130}};
  for (auto [M, K, N] : shapes)
    for (Kind kind : {Kind::kFloat32, Kind::kBFloat16, Kind::kInt8, Kind::kInt4})
      for (Activation activation : {Activation::kNone, Activation::kGelu, Activation::kSwiglu})
        for (int64_t group : {int64_t(32), K}) linear(kind, M, K, N, group, activation);
}

}  // namespace

int main() {
  set_threads(2);
  for (const char* isa : {"plain", "avx2", "avx512"}) {
    try {
      use_isa(isa);
    } catch (const std::runtime_error& e) {
      std::printf("%s\n", e.what());
      continue;
    }
    linears();
    attentions(numbers);
    layers(numbers);
    std::printf("%s: sound\n", isa);
  }
}
