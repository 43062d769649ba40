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

inline void attentions(std::mt19937& numbers) {
  const int64_t sizes[][7] = {{1, 1, 1, 1, 1, 1, 1},     {2, 1, 37, 6, 2, 12, 16}, {3, 4, 9, 5, 5, 7, 3},
                              {1, 5, 70, 7, 1, 17, 16},  {2, 50, 61, 4, 2, 8, 61}, {1, 49, 600, 2, 1, 65, 32},
                              {1, 1, 700, 14, 2, 64, 16}, {1, 53, 53, 3, 3, 24, 53}};
  for (auto [rows, length, total, heads, kv_heads, e, block] : sizes)
    for (bool causal : {false, true})
      for (bool masked : {false, true})
        for (int64_t window : {0, 5})
          attention_of({rows, length, total, heads, kv_heads, e, block, causal ? window : 0, causal, masked}, numbers);
}
