// The sanitizer's program: attention on odd shapes, over tensors and over blocks, against plain loops in double.
#pragma once
#include "bfloat16.h"
#include "dispatch.h"
#include "sanitize.h"

struct AttentionShape {
  int64_t rows, length, total, heads, kv_heads, head_dim, block, window;
  bool causal, masked;
};

inline void attention_of(const AttentionShape& s, std::mt19937& numbers) {
  const int64_t e = s.head_dim, width = (s.total + s.block - 1) / s.block, cell = s.block * e;
  const auto q = random_floats(s.rows * s.length * s.heads * e, numbers);
  const auto keys = random_floats(s.rows * width * s.kv_heads * cell, numbers);
  const auto values = random_floats(s.rows * width * s.kv_heads * cell, numbers);
  Exact<float> out(s.rows * s.length * s.heads * e);
  Exact<int64_t> table(s.rows * width), totals(s.rows);
  Exact<uint8_t> mask(s.rows * s.total);
  for (int64_t i = 0; i < s.rows * width; i++) table[i] = s.rows * width - 1 - i;
  for (int64_t b = 0; b < s.rows; b++) totals[b] = s.total - b > s.length ? s.total - b : s.length;
  for (int64_t i = 0; i < s.rows * s.total; i++) mask[i] = i % s.total >= 1 && numbers() % 4 != 0;
  Attention a;
  a.q = {q.at(), s.length * s.heads * e, s.heads * e, e};
  a.out = {out.at(), s.length * s.heads * e, s.heads * e, e};
  a.keys = {keys.at(), table.at(), width, s.block, s.kv_heads * cell, cell, e};
  a.values = a.keys;
  a.values.base = values.at();
  a.rows = s.rows;
  a.length = s.length;
  a.heads = s.heads;
  a.kv_heads = s.kv_heads;
  a.head_dim = e;
  a.totals = totals.at();
  a.mask = s.masked ? mask.at() : nullptr;
  a.mask_width = s.total;
  a.window = s.window;
  a.causal = s.causal;
  a.scale = 0.5f;
  (in_bfloat16 ? require_bfloat16().attention : kernels().attention)(a);
  for (int64_t i = 0; i < s.rows * s.length * s.heads; i++) {
    const int64_t h = i % s.heads, l = i / s.heads % s.length, b = i / s.heads / s.length, own = totals[b] - s.length + l;
    std::vector<double> sums(e, 0);
    double weights = 0;
    for (int64_t p = 0; p < totals[b]; p++) {
      if ((s.causal && (p > own || (s.window && p <= own - s.window))) || (s.masked && !mask[b * s.total + p])) continue;
      const int64_t cells = table[b * width + p / s.block] * s.kv_heads + h / (s.heads / s.kv_heads);
      const int64_t at = cells * cell + p % s.block * e;
      double score = 0;
      for (int64_t d = 0; d < e; d++) score += 0.5 * q[i * e + d] * keys[at + d];
      weights += std::exp(score);
      for (int64_t d = 0; d < e; d++) sums[d] += std::exp(score) * values[at + d];
    }
    for (int64_t d = 0; d < e; d++) same(out[i * e + d], weights ? sums[d] / weights : 0, in_bfloat16 ? 2e-2 : 1e-5, "attention");
  }
}

// The gradients on the same shapes, over tensors: of sum(slope out), by differences of the loss in double.
struct Loss {
  const AttentionShape& s;
  const Exact<float>&q, &keys, &values, &slope;
  const Exact<uint8_t>& mask;

  // with number `at` of `moved` changed by `by`
  double operator()(const Exact<float>& moved, int64_t at, double by) const {
    const int64_t e = s.head_dim, group = s.heads / s.kv_heads;
    const auto number = [&](const Exact<float>& x, int64_t i) { return x[i] + (&x == &moved && i == at ? by : 0.); };
    double loss = 0;
    for (int64_t i = 0; i < s.rows * s.length * s.heads; i++) {
      const int64_t h = i % s.heads, b = i / s.heads / s.length, own = s.total - s.length + i / s.heads % s.length;
      double weights = 0, blended = 0;
      for (int64_t p = 0; p < s.total; p++) {
        if ((s.causal && (p > own || (s.window && p <= own - s.window))) || (s.masked && !mask[b * s.total + p])) continue;
        const int64_t first = ((b * s.total + p) * s.kv_heads + h / group) * e;
        double score = 0, along = 0;
        for (int64_t d = 0; d < e; d++) {
          score += 0.5 * number(q, i * e + d) * number(keys, first + d);
          along += double(slope[i * e + d]) * number(values, first + d);
        }
        weights += std::exp(score);
        blended += std::exp(score) * along;
      }
      if (weights) loss += blended / weights;
    }
    return loss;
  }
};

inline void gradients_of(const AttentionShape& s, std::mt19937& numbers) {
  const int64_t e = s.head_dim, queries = s.rows * s.length * s.heads * e, cells = s.rows * s.total * s.kv_heads * e;
  const auto q = random_floats(queries, numbers), slope = random_floats(queries, numbers);
  const auto keys = random_floats(cells, numbers), values = random_floats(cells, numbers);
  const int64_t group = s.heads / s.kv_heads;
  Exact<float> grad_q(queries), grad_keys(cells * group), grad_values(cells * group);
  Exact<int64_t> totals(s.rows);
  Exact<uint8_t> mask(s.rows * s.total);
  for (int64_t b = 0; b < s.rows; b++) totals[b] = s.total;
  for (int64_t i = 0; i < s.rows * s.total; i++) mask[i] = numbers() % 4 != 0;
  const auto heads_at = [&](float* at, int64_t positions, int64_t heads) {
    return Heads{at, positions * heads * e, heads * e, e};
  };
  Attention a;
  a.q = heads_at(q.at(), s.length, s.heads);
  a.keys = {keys.at(), nullptr, 0, s.total, s.total * s.kv_heads * e, e, s.kv_heads * e};
  a.values = a.keys;
  a.values.base = values.at();
  a.rows = s.rows, a.length = s.length, a.heads = s.heads, a.kv_heads = s.kv_heads, a.head_dim = e;
  a.totals = totals.at();
  a.mask = s.masked ? mask.at() : nullptr;
  a.mask_width = s.total;
  a.window = s.window, a.causal = s.causal, a.scale = 0.5f;
  kernels().attention_grad({a, heads_at(slope.at(), s.length, s.heads), heads_at(grad_q.at(), s.length, s.heads),
                            heads_at(grad_keys.at(), s.total, s.heads), heads_at(grad_values.at(), s.total, s.heads)});
  const Loss loss{s, q, keys, values, slope, mask};
  const auto differs = [&](const Exact<float>& x, int64_t i) { return (loss(x, i, 1e-4) - loss(x, i, -1e-4)) / 2e-4; };
  for (int check = 0; check < 4; check++) {
    const int64_t i = numbers() % queries, j = numbers() % cells;
    same(grad_q[i], differs(q, i), 1e-4, "gradient of q");
    double key = 0, value = 0;
    for (int64_t g = 0; g < group; g++) {
      const int64_t at = (j / e * group + g) * e + j % e;
      key += grad_keys[at];
      value += grad_values[at];
    }
    same(key, differs(keys, j), 1e-4, "gradient of k");
    same(value, differs(values, j), 1e-4, "gradient of v");
  }
}

inline void attentions(std::mt19937& numbers) {
  const int64_t sizes[][7] = {{1, 1, 1, 1, 1, 1, 1},     {2, 1, 37, 6, 2, 12, 16}, {3, 4, 9, 5, 5, 7, 3},
                              {1, 5, 70, 7, 1, 17, 16},  {2, 50, 61, 4, 2, 8, 61}, {1, 49, 600, 2, 1, 65, 32},
                              {1, 1, 700, 14, 2, 64, 16}, {1, 53, 53, 3, 3, 24, 53}};
  for (auto [rows, length, total, heads, kv_heads, e, block] : sizes)
    for (bool causal : {false, true})
      for (bool masked : {false, true})
        for (int64_t window : {0, 5})
          attention_of({rows, length, total, heads, kv_heads, e, block, causal ? window : 0, causal, masked}, numbers);
  if (in_bfloat16) return;
  for (auto [rows, length, total, heads, kv_heads, e, block] : sizes)
    for (bool causal : {false, true})
      for (bool masked : {false, true})
        gradients_of({rows, length, total, heads, kv_heads, e, block, causal ? 5 : 0, causal, masked}, numbers);
}
