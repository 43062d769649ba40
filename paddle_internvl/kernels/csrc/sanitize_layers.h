// The sanitizer's program: norms, rope, activations and whole layers on odd shapes. What comes out is compared in
// tests/kernels; here every buffer ends where it must.
#pragma once
#include "bfloat16.h"
#include "dispatch.h"
#include "sanitize.h"

inline void finite(const Exact<float>& x, int64_t count, const char* what) {
  for (int64_t i = 0; i < count; i++) same(std::isfinite(x[i]) ? 0 : 1, 0, 0, what);
}

inline void pointwise_of(int64_t rows, int64_t width, std::mt19937& numbers) {
  const auto x = random_floats(rows * width, numbers), y = random_floats(rows * width, numbers);
  const auto weight = random_floats(width, numbers), bias = random_floats(width, numbers);
  Exact<float> out(rows * width), sum(rows * width);
  Norm a;
  a.x = x.at();
  a.weight = weight.at();
  a.out = out.at();
  a.rows = rows;
  a.width = a.x_apart = a.out_apart = width;
  a.eps = 1e-6f;
  kernels().norm(a);
  double squares = 0;
  for (int64_t i = 0; i < width; i++) squares += double(x[i]) * x[i];
  for (int64_t i = 0; i < width; i++)
    same(out[i], x[i] / std::sqrt(squares / width + 1e-6) * weight[i], 1e-5, "norm");
  a.add = y.at();
  a.sum = sum.at();
  a.bias = bias.at();
  a.centred = true;
  kernels().norm(a);
  finite(out, rows * width, "layer norm");
  for (Pointwise what : {Pointwise::kGelu, Pointwise::kSwiglu, Pointwise::kScaledSum}) {
    Elements e;
    e.what = what;
    e.x = x.at();
    e.y = what == Pointwise::kGelu ? nullptr : y.at();
    e.scale = what == Pointwise::kScaledSum ? weight.at() : nullptr;
    e.out = out.at();
    e.count = rows * width;
    e.width = width;
    kernels().elements(e);
    finite(out, rows * width, "elements");
  }
}

// A float32 layer of random weights, whose memory `held` keeps.
inline Dense dense_of(int64_t inputs, int64_t outputs, bool bias, std::vector<Exact<float>>& held, std::mt19937& numbers) {
  held.push_back(random_floats(inputs * outputs, numbers));
  Dense dense;
  dense.weight.data = held.back().at();
  dense.weight.K = inputs;
  dense.weight.N = outputs;
  if (bias) {
    held.push_back(random_floats(outputs, numbers));
    dense.bias = held.back().at();
  }
  return dense;
}

inline void decoder_of(int64_t rows, int64_t length, int64_t past, int64_t heads, int64_t kv_heads, int64_t e, int64_t f,
                       bool last_only, bool norms, std::mt19937& numbers, int64_t experts = 0) {
  const int64_t d = norms ? heads * e - 1 : heads * e, q = heads * e, total = past + length, outputs = rows * (last_only ? 1 : length);
  std::vector<Exact<float>> held;
  const auto x = random_floats(rows * length * d, numbers), cosines = random_floats(rows * length * e, numbers);
  const auto norm = random_floats(d, numbers), head = random_floats(e, numbers);
  const auto sines = random_floats(rows * length * e, numbers);
  const auto keys = random_floats(rows * total * kv_heads * e, numbers);
  const auto values = random_floats(rows * total * kv_heads * e, numbers);
  Exact<float> out(outputs * d);
  Exact<int64_t> totals(rows);
  for (int64_t b = 0; b < rows; b++) totals[b] = total;
  DecoderLayer a;
  a.q = dense_of(d, q, true, held, numbers);
  a.k = dense_of(d, kv_heads * e, true, held, numbers);
  a.v = dense_of(d, kv_heads * e, true, held, numbers);
  a.o = dense_of(q, d, false, held, numbers);
  a.gate = dense_of(d, f, false, held, numbers);
  a.up = dense_of(d, f, false, held, numbers);
  a.down = dense_of(f, d, false, held, numbers);
  if (experts) {
    a.sparse.router = dense_of(d, experts, false, held, numbers);
    a.sparse.gate_up = dense_of(d, experts * 2 * f, false, held, numbers);  // as much memory as theirs
    a.sparse.down = dense_of(f, experts * d, false, held, numbers);
    a.sparse.gate_up.weight.N = 2 * f;
    a.sparse.down.weight.N = d;
    a.sparse.count = experts;
    a.sparse.top = (experts + 1) / 2;
    a.sparse.normalised = norms;
  }
  a.norm1 = a.norm2 = norm.at();
  a.q_norm = a.k_norm = norms ? head.at() : nullptr;
  a.width = d;
  a.heads = heads;
  a.kv_heads = kv_heads;
  a.head_dim = e;
  a.features = f;
  a.eps1 = a.eps2 = 1e-6f;
  DecoderCall call;
  call.x = x.at();
  call.out = out.at();
  call.cosines = cosines.at();
  call.sines = sines.at();
  call.keys = {keys.at(), nullptr, 0, total, total * kv_heads * e, e, kv_heads * e};
  call.values = call.keys;
  call.values.base = values.at();
  call.totals = totals.at();
  call.rows = rows;
  call.length = length;
  call.last_only = last_only;
  (in_bfloat16 ? require_bfloat16().decoder_layer : kernels().decoder_layer)(a, call);
  finite(out, outputs * d, "decoder layer");
}

// The same by kernels that are held to loops in double, which know rows alone.
inline Exact<float> vision_by_parts(const VisionLayer& a, const float* x, int64_t tiles, int64_t length) {
  const int64_t c = a.width, e = c / a.heads, n = tiles * length, f = a.features;
  Exact<float> normed(n * c), qkv(n * 3 * c), attended(n * c), inner(n * f), out(n * c);
  auto norm = [&](const float* from, const float* weight, const float* bias, float* to, int64_t apart, bool centred) {
    Norm call;
    call.x = from;
    call.weight = weight;
    call.bias = bias;
    call.out = to;
    call.rows = n;
    call.width = c;
    call.x_apart = call.out_apart = apart;
    call.eps = a.eps;
    call.centred = centred;
    kernels().norm(call);
  };
  auto product = [&](const Dense& dense, const float* from, float* to, const float* residual, const float* scale, bool gelu) {
    Linear call;
    call.weight = dense.weight;
    call.bias = dense.bias;
    call.x = from;
    call.out = to;
    call.M = n;
    call.x_stride = dense.weight.K;
    call.out_stride = dense.weight.N;
    call.residual = residual;
    call.layer_scale = scale;
    if (gelu) call.activation = Activation::kGelu;
    kernels().linear(call);
  };
  norm(x, a.norm1, a.norm1_bias, normed.at(), c, a.centred);
  product(a.qkv, normed.at(), qkv.at(), nullptr, nullptr, false);
  if (a.q_norm) norm(qkv.at(), a.q_norm, nullptr, qkv.at(), 3 * c, false);
  if (a.k_norm) norm(qkv.at() + c, a.k_norm, nullptr, qkv.at() + c, 3 * c, false);
  const std::vector<int64_t> totals(tiles, length);
  Attention all;
  all.q = {qkv.at(), length * 3 * c, 3 * c, e};
  all.out = {attended.at(), length * c, c, e};
  all.keys = {qkv.at() + c, nullptr, 0, length, length * 3 * c, e, 3 * c};
  all.values = all.keys;
  all.values.base = qkv.at() + 2 * c;
  all.rows = tiles;
  all.length = length;
  all.heads = all.kv_heads = a.heads;
  all.head_dim = e;
  all.totals = totals.data();
  all.scale = 1.f / std::sqrt(float(e));
  kernels().attention(all);
  product(a.proj, attended.at(), out.at(), x, a.scale1, false);
  norm(out.at(), a.norm2, a.norm2_bias, normed.at(), c, a.centred);
  product(a.fc1, normed.at(), inner.at(), nullptr, nullptr, true);
  product(a.fc2, inner.at(), out.at(), out.at(), a.scale2, false);
  return out;
}

inline void vision_of(int64_t tiles, int64_t length, int64_t heads, int64_t e, int64_t f, bool norms, std::mt19937& numbers) {
  const int64_t c = heads * e;
  std::vector<Exact<float>> held;
  const auto x = random_floats(tiles * length * c, numbers), vector = random_floats(c, numbers);
  Exact<float> out(tiles * length * c);
  VisionLayer a;
  a.qkv = dense_of(c, 3 * c, !norms, held, numbers);
  a.proj = dense_of(c, c, true, held, numbers);
  a.fc1 = dense_of(c, f, true, held, numbers);
  a.fc2 = dense_of(f, c, true, held, numbers);
  a.norm1 = a.norm2 = a.scale1 = a.scale2 = vector.at();
  a.norm1_bias = a.norm2_bias = norms ? nullptr : vector.at();
  a.q_norm = a.k_norm = norms ? vector.at() : nullptr;
  a.width = c;
  a.heads = heads;
  a.features = f;
  a.centred = !norms;
  a.eps = 1e-6f;
  VisionCall call;
  call.x = x.at();
  call.out = out.at();
  call.tiles = tiles;
  call.length = length;
  (in_bfloat16 ? require_bfloat16().vision_layer : kernels().vision_layer)(a, call);
  finite(out, tiles * length * c, "vision layer");
  if (in_bfloat16) return;
  const Exact<float> expected = vision_by_parts(a, x.at(), tiles, length);
  for (int64_t i = 0; i < tiles * length * c; i++)
    same(out[i], expected[i], 1e-4 * (1 + std::fabs(expected[i])), "vision layer beside its parts");
}

// `side` patches along a tile's side.
inline void projector_of(int64_t tiles, int64_t side, int64_t merge, int64_t c, int64_t d, bool transposed, std::mt19937& numbers) {
  const int64_t k = merge * merge * c, grid = side / merge, length = 1 + side * side;
  std::vector<Exact<float>> held;
  const auto x = random_floats(tiles * length * c, numbers), norm = random_floats(k, numbers), shift = random_floats(k, numbers);
  Exact<float> out(tiles * grid * grid * d);
  Projector a;
  a.fc1 = dense_of(k, d, true, held, numbers);
  a.fc2 = dense_of(d, d, true, held, numbers);
  a.norm = norm.at();
  a.norm_bias = shift.at();
  a.width = c;
  a.merge = merge;
  a.transposed = transposed;
  a.eps = 1e-5f;
  ProjectorCall call;
  call.x = x.at();
  call.out = out.at();
  call.tiles = tiles;
  call.side = side;
  (in_bfloat16 ? require_bfloat16().projector : kernels().projector)(a, call);
  finite(out, tiles * grid * grid * d, "projector");
}

inline void layers(std::mt19937& numbers) {
  projector_of(1, 2, 2, 3, 5, false, numbers);
  projector_of(3, 4, 2, 5, 33, true, numbers);
  projector_of(5, 30, 2, 3, 17, false, numbers);
  for (int64_t width : {1, 5, 16, 33, 130})
    for (int64_t rows : {1, 3, 70}) pointwise_of(rows, width, numbers);
  for (bool last_only : {false, true}) {
    decoder_of(1, 1, 0, 1, 1, 2, 3, last_only, false, numbers);
    decoder_of(1, 1, 37, 5, 1, 12, 50, last_only, true, numbers);
    decoder_of(3, 2, 7, 6, 2, 14, 33, last_only, false, numbers);
    decoder_of(2, 31, 5, 4, 2, 10, 37, last_only, true, numbers);
    decoder_of(1, 1030, 0, 2, 1, 6, 9, last_only, false, numbers);
    decoder_of(1, 1, 3, 2, 1, 6, 5, last_only, true, numbers, 5);
    decoder_of(2, 3, 0, 2, 1, 6, 9, last_only, false, numbers, 8);
    decoder_of(1, 33, 0, 2, 2, 6, 9, last_only, true, numbers, 3);
  }
  for (bool norms : {false, true}) {
    vision_of(1, 1, 1, 1, 1, norms, numbers);
    vision_of(3, 17, 3, 10, 31, norms, numbers);
    vision_of(5, 401, 2, 7, 13, norms, numbers);
    vision_of(2, 29, 3, 16, 1060, norms, numbers);
  }
}
