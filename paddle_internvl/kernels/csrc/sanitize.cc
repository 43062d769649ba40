// A program of its own for `make sanitize`: every kernel on odd shapes, under AddressSanitizer and UBSan, against plain
// loops in double. Buffers are exactly as large as they must be, so that a read behind them is caught.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>

#include "bfloat16.h"
#include "dispatch.h"
#include "sanitize.h"
#include "sanitize_attention.h"
#include "sanitize_int8.h"
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
  const bool whole = kind == Kind::kInt8 || kind == Kind::kInt4;  // where they are rounded, an offset is added without
  const bool exact = !in_bfloat16 || M <= (whole ? exact_rows : kExactRows), exact_weights = exact || (whole && M <= exact_integers);
  const Held w = held(kind, K, N, group), up = held(kind, K, N, group);
  const auto x = random_floats(M * K, numbers), bias = random_floats(N, numbers), scale = random_floats(N, numbers);
  const auto residual = random_floats(M * N, numbers);
  Exact<float> out(M * N);
  Linear a = linear_of(w.weight, up.weight, M, activation, x, bias, residual, out);
  a.layer_scale = scale.at();
  (in_bfloat16 ? require_bfloat16().linear : kernels().linear)(a);
  for (int64_t m = 0; m < M; m++)
    for (int64_t n = 0; n < N; n++) {
      double y = a.bias ? bias[n] : 0, other = 0, size = 1;
      for (int64_t k = 0; k < K; k++) {
        y += taken(x[m * K + k], exact) * taken(w.means[k * N + n], exact_weights);
        other += taken(x[m * K + k], exact) * taken(up.means[k * N + n], exact_weights);
        size += std::fabs(x[m * K + k]) * (std::fabs(w.means[k * N + n]) + std::fabs(up.means[k * N + n]));
      }
      if (activation == Activation::kGelu) y *= 0.5 * (1 + std::erf(y / std::sqrt(2.0)));
      if (activation == Activation::kSwiglu) size *= 1 + std::fabs(y) + std::fabs(other), y = y / (1 + std::exp(-y)) * other;
      same(out[m * N + n], residual[m * N + n] + scale[n] * y, (whole && !exact ? 1e-3 : 4e-6) * size, "linear");
    }
}

void linears() {
  const int64_t shapes[][3] = {{1, 1, 1},   {1, 7, 33},  {2, 130, 31}, {3, 64, 70},    {8, 33, 15},
                               {9, 65, 33}, {15, 7, 64}, {43, 31, 97}, {17, 1300, 40}, {90, 40, 130}, {1, 192, 200}, {3, 64, 70}, {1, 80, 129}};
  for (auto [M, K, N] : shapes)
    for (Kind kind : {Kind::kFloat32, Kind::kBFloat16, Kind::kInt8, Kind::kInt4})
      for (Activation activation : {Activation::kNone, Activation::kGelu, Activation::kSwiglu})
        for (int64_t group : {int64_t(32), K}) linear(kind, M, K, N, group, activation);
}

void int8_linears() {
  const int64_t shapes[][3] = {{1, 1, 1}, {9, 65, 33}, {33, 130, 31}, {17, 1400, 40}, {90, 40, 130}, {300, 72, 5}};
  for (auto [M, K, N] : shapes)
    for (Kind kind : {Kind::kInt8, Kind::kInt4})
      for (int64_t group : {int64_t(32), K})
        for (bool offsets : {false, true}) {
          Held w = held(kind, K, N, group), up = held(kind, K, N, group);
          if (!offsets) w.weight.offsets = up.weight.offsets = nullptr;
          int8_linear_of(w, up, M, offsets ? Activation::kSwiglu : Activation::kGelu, numbers);
        }
}

// `count` experts, whose weights are copies of one; some choices name none.
void experts(Kind kind, int64_t count, int64_t M, int64_t top, int64_t D, int64_t I, int64_t group) {
  const bool whole = kind == Kind::kInt8 || kind == Kind::kInt4;
  auto stacked = [&](Held& one, Exact<char>& data, Exact<float>& scales, Exact<float>& offsets) {
    const Weight& w = one.weight;
    const int64_t rows = kind == Kind::kInt4 ? (w.K + 1) / 2 : w.K, numbers = (w.K + w.group - 1) / w.group * w.N;
    const int64_t bytes = rows * w.N * (kind == Kind::kFloat32 ? 4 : kind == Kind::kBFloat16 ? 2 : 1);
    data = Exact<char>(count * bytes);
    scales = offsets = Exact<float>(0);
    if (whole) scales = Exact<float>(count * numbers), offsets = Exact<float>(count * numbers);
    for (int64_t e = 0; e < count; e++) {
      memcpy(data.at() + e * bytes, one.data.at(), bytes);
      if (!whole) continue;
      memcpy(scales.at() + e * numbers, w.scales, numbers * sizeof(float));
      memcpy(offsets.at() + e * numbers, w.offsets, numbers * sizeof(float));
    }
    Weight first = w;
    first.data = data.at();
    if (whole) first.scales = scales.at(), first.offsets = offsets.at();
    return first;
  };
  Held gate_up = held(kind, D, 2 * I, group), down = held(kind, I, D, group);
  Exact<char> data1, data2;
  Exact<float> scales1, scales2, offsets1, offsets2;
  const auto x = random_floats(M * D, numbers), weights = random_floats(M * top, numbers);
  Exact<int32_t> chosen(M * top);
  Exact<float> out(M * D);
  for (int64_t i = 0; i < M * top; i++) chosen[i] = numbers() % 7 ? int32_t((i / top + i % top) % count) : -1;
  for (int64_t i = 0; i < M * D; i++) out[i] = 1;
  Experts a;
  a.gate_up = stacked(gate_up, data1, scales1, offsets1);
  a.down = stacked(down, data2, scales2, offsets2);
  a.count = count;
  a.x = x.at();
  a.out = out.at();
  a.chosen = chosen.at();
  a.weights = weights.at();
  a.M = M;
  a.top = top;
  kernels().experts(a);
  for (int64_t m = 0; m < M; m++) {
    double share = 0;
    for (int64_t t = 0; t < top; t++) share += chosen[m * top + t] < 0 ? 0 : weights[m * top + t];
    std::vector<double> inner(I), size(I);
    for (int64_t i = 0; i < I; i++) {
      double gate = 0, up = 0, sum = 1;
      for (int64_t d = 0; d < D; d++) {
        gate += x[m * D + d] * gate_up.means[d * 2 * I + i];
        up += x[m * D + d] * gate_up.means[d * 2 * I + I + i];
        sum += std::fabs(x[m * D + d]) * (16 + std::fabs(gate_up.means[d * 2 * I + i]) + std::fabs(gate_up.means[d * 2 * I + I + i]));
      }
      inner[i] = gate / (1 + std::exp(-gate)) * up;
      size[i] = sum * (1 + std::fabs(gate) + std::fabs(up));
    }
    for (int64_t d = 0; d < D; d++) {
      double y = 0, sum = 1;
      for (int64_t i = 0; i < I; i++) y += inner[i] * down.means[i * D + d], sum += size[i] * (16 + std::fabs(down.means[i * D + d]));
      same(out[m * D + d], 1 + share * y, 4e-6 * sum * top, "experts");
    }
  }
}

void mixtures() {
  const int64_t shapes[][5] = {{1, 1, 1, 1, 1}, {5, 1, 3, 33, 7}, {8, 3, 2, 64, 48}, {3, 8, 3, 128, 80}, {4, 40, 2, 70, 31}};
  for (auto [count, M, top, D, I] : shapes)
    for (Kind kind : {Kind::kFloat32, Kind::kBFloat16, Kind::kInt8, Kind::kInt4})
      for (int64_t group : {int64_t(16), int64_t(32)}) experts(kind, count, M, top, D, I, group);
}

}  // namespace

int main() {
  set_threads(2);
  for (const char* isa : {"plain", "avx2", "avx512", "avx512_bf16", "amx"}) {
    try {
      use_isa(isa);
    } catch (const std::runtime_error& e) {
      std::printf("%s\n", e.what());
      continue;
    }
    const bool tiles = isa == std::string("amx");
    exact_rows = tiles ? 8 : kExactRows;
    exact_integers = tiles ? 16 : kExactRows;
    int8_linears();
    for (bool halves : {false, true}) {
      if (halves ? !bfloat16_kernels() : kernels().name != std::string(isa)) continue;
      in_bfloat16 = halves;
      linears();
      if (!halves) mixtures();
      attentions(numbers);
      layers(numbers);
      std::printf("%s, %s: sound\n", isa, halves ? "bfloat16" : "float32");
    }
  }
}
