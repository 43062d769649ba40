// Mixture of experts: rows are sorted by expert, so that the weights of every chosen expert are read once, and those of
// the others never.
//
// In: Experts (experts_arguments.h). Out: their sum. Few rows run within one parallel region: first the columns of gate
// and up of all chosen experts, side by side, are shared out among the threads, then the columns of the output.
#include "experts_arguments.h"

namespace ISA {
namespace mixing {

constexpr int64_t kAdded = 256;  // columns of the output that a thread adds to at a time

// Expert `e` of a stacked weight.
static Weight expert_of(Weight w, int64_t e) {
  const long rows = (w.K + rows_in_a_byte(w.kind) - 1) / rows_in_a_byte(w.kind), scales = groups_of(w) * w.N;
  w.data = (const char*)w.data + e * rows * row_bytes(w.kind, w.N);
  if (w.scales) w.scales += e * scales;
  if (w.offsets) w.offsets += e * scales;
  return w;
}

// Choices [M * top] sorted by expert: expert e has order[starts[e]] .. order[starts[e + 1] - 1].
struct Sorted {
  const int32_t *starts, *order;
  int64_t rows(int64_t e) const { return starts[e + 1] - starts[e]; }
};

static Sorted sorted(const Experts& a) {
  const int64_t choices = a.M * a.top;
  int32_t* starts = (int32_t*)scratch(kExperts1, a.count + 2 + choices);
  int32_t* order = starts + a.count + 2;
  for (int64_t e = 0; e < a.count + 2; e++) starts[e] = 0;
  for (int64_t i = 0; i < choices; i++)
    if (a.chosen[i] >= 0) starts[a.chosen[i] + 2]++;
  for (int64_t e = 2; e < a.count + 2; e++) starts[e] += starts[e - 1];
  for (int64_t i = 0; i < choices; i++)
    if (a.chosen[i] >= 0) order[starts[a.chosen[i] + 1]++] = int32_t(i);
  return {starts, order};
}

// Rows of x that `n` choices belong to, side by side; a single row where it lies.
static const float* take_rows(const Experts& a, const int32_t* order, int64_t n, float* copy) {
  const int64_t d = a.gate_up.K;
  if (n == 1) return a.x + order[0] / a.top * d;
  for (int64_t i = 0; i < n; i++) __builtin_memcpy(copy + i * d, a.x + order[i] / a.top * d, d * sizeof(float));
  return copy;
}

// Row [2 I] of gate and up: its first half becomes weight * silu(gate) * up.
static void activate(float* row, int64_t features, float weight) {
  for (int64_t i = 0; i < features; i += LANES) {
    const int64_t n = features - i;
    store_upto(row + i, silu(load_upto(row + i, n)) * load_upto(row + features + i, n) * set(weight), n);
  }
}

// take(sums, apart, first row, rows, column, columns) for every block of columns [first, last) of a product of rows.
template <class Take>
static void product_of(const Weight& w, const float* x, int64_t x_stride, int64_t rows, long first, long last, Take take) {
  float *sums = scratch(kLinearSums, 3 * kSums), *part = sums + kSums;
  for (int64_t row = 0; row < rows; row += kFewRows) {
    const long n = rows - row < kFewRows ? rows - row : kFewRows, block = block_of(n, last - first);
    const float* here = x + row * x_stride;
    FewRows taken(here, x_stride, n);
    for (long column = first; column < last; column += block) {
      const long columns = last - column < block ? last - column : block;
      few(w, taken, column, columns, sums, part, block);
      take(sums, block, row, n, column, columns);
    }
  }
}

// Thread `thread` of `count`'s part of gate and up of all chosen experts: inner [M * top, 2 I], in the order of `s`.
static void widen_part(const Experts& a, const Sorted& s, float* inner, int thread, int count) {
  const int64_t n = a.gate_up.N, d = a.gate_up.K, units = (n + kPanel - 1) / kPanel;
  int64_t used = 0, at = 0;
  for (int64_t e = 0; e < a.count; e++) used += s.rows(e) > 0;
  const int64_t first = used * units * thread / count, end = used * units * (thread + 1) / count;
  for (int64_t e = 0; e < a.count && at < end; e++) {
    const int64_t rows = s.rows(e);
    if (!rows) continue;
    const int64_t low = first > at ? first - at : 0, high = end - at < units ? end - at : units;
    at += units;
    if (low >= high) continue;
    float* to = inner + s.starts[e] * n;
    const float* x = take_rows(a, s.order + s.starts[e], rows, scratch(kExperts2, rows * d));
    product_of(expert_of(a.gate_up, e), x, d, rows, low * kPanel, high * kPanel < n ? high * kPanel : n,
               [&](const float* sums, long apart, int64_t row, long some, long column, long columns) {
                 for (long r = 0; r < some; r++)
                   __builtin_memcpy(to + (row + r) * n + column, sums + r * apart, columns * sizeof(float));
               });
  }
}

// Thread `thread` of `count`'s columns of the output: += down of every chosen expert.
static void narrow_part(const Experts& a, const Sorted& s, const float* inner, int thread, int count) {
  const int64_t d = a.down.N, units = (d + kPanel - 1) / kPanel;
  const int64_t first = units * thread / count * kPanel, end = units * (thread + 1) / count * kPanel;
  for (int64_t e = 0; e < a.count; e++) {
    if (!s.rows(e)) continue;
    const int32_t* order = s.order + s.starts[e];
    product_of(expert_of(a.down, e), inner + s.starts[e] * a.gate_up.N, a.gate_up.N, s.rows(e), first, end < d ? end : d,
               [&](const float* sums, long apart, int64_t row, long some, long column, long columns) {
                 for (long r = 0; r < some; r++) {
                   float* to = a.out + order[row + r] / a.top * d + column;
                   for (long c = 0; c < columns; c += LANES)
                     store_upto(to + c, load_upto(to + c, columns - c) + load(sums + r * apart + c), columns - c);
                 }
               });
  }
}

// Few rows. inner: [M * top, 2 I], of all threads. For use within a parallel region, by all of its threads, which have
// arguments of their own; the end is not waited for.
static void few_part(const Experts& a, float* inner, int thread, int count) {
  const Sorted s = sorted(a);
  widen_part(a, s, inner, thread, count);
#pragma omp barrier
#pragma omp for schedule(static)
  for (int64_t i = 0; i < s.starts[a.count]; i++) activate(inner + i * a.gate_up.N, a.down.K, a.weights[s.order[i]]);
  narrow_part(a, s, inner, thread, count);
}

// Many rows: one expert after the other, whose products all threads share.
static void many(const Experts& a) {
  const Sorted s = sorted(a);
  const int64_t d = a.down.N, n = a.gate_up.N;
  int64_t most = 0;
  for (int64_t e = 0; e < a.count; e++) most = s.rows(e) > most ? s.rows(e) : most;
  float *rows_of = scratch(kExperts2, most * d), *inner = scratch(kExperts3, most * n);
  for (int64_t e = 0; e < a.count; e++) {
    const int64_t rows = s.rows(e);
    if (!rows) continue;
    const int32_t* order = s.order + s.starts[e];
    Linear widen;
    widen.weight = expert_of(a.gate_up, e);
    widen.x = take_rows(a, order, rows, rows_of);
    widen.x_stride = d;
    widen.out = inner;
    widen.M = rows;
    widen.out_stride = n;
    linear(widen);
#pragma omp parallel for schedule(static) num_threads(threads()) if (rows > 1)
    for (int64_t i = 0; i < rows; i++) activate(inner + i * n, a.down.K, a.weights[order[i]]);
    Linear narrow;
    narrow.weight = expert_of(a.down, e);
    narrow.x = inner;
    narrow.x_stride = n;
    narrow.out = rows_of;
    narrow.M = rows;
    narrow.out_stride = d;
    linear(narrow);
#pragma omp parallel for schedule(static) num_threads(threads()) if (rows > 1)
    for (int64_t first = 0; first < d; first += kAdded)  // columns: a row that names an expert twice has two of the rows
      for (int64_t i = 0; i < rows; i++) {
        const int64_t end = first + kAdded < d ? first + kAdded : d;
        float* to = a.out + order[i] / a.top * d;
        for (int64_t c = first; c < end; c += LANES)
          store_upto(to + c, load_upto(to + c, end - c) + load_upto(rows_of + i * d + c, end - c), end - c);
      }
  }
}

// Row `i` of a router: exponentials of its logits, and `top` times the largest that is left.
static void route_row(const Router& a, int64_t i) {
  float* p = scratch(kExperts4, a.count);
  const float* logits = a.logits + i * a.count;
  float top = logits[0], total = 0, kept = 0;
  for (int64_t e = 1; e < a.count; e++) top = logits[e] > top ? logits[e] : top;
  for (int64_t e = 0; e < a.count; e += LANES)
    store_upto(p + e, exp(load_upto(logits + e, a.count - e) - set(top)), a.count - e);
  for (int64_t e = 0; e < a.count; e++) total += p[e];
  for (int64_t k = 0; k < a.top; k++) {
    int64_t best = -1;  // p is negative where it is taken; NaN is never larger, and the first that is left is taken
    for (int64_t e = 0; e < a.count; e++)
      if (!(p[e] < 0) && (best < 0 || p[e] > p[best])) best = e;
    a.chosen[i * a.top + k] = int32_t(best);
    kept += a.weights[i * a.top + k] = p[best];
    p[best] = -1;
  }
  for (int64_t k = 0; k < a.top; k++) a.weights[i * a.top + k] /= a.normalised ? kept : total;
}

}  // namespace mixing

static void experts(const Experts& a) {
  if (a.M > kFewRows) return mixing::many(a);
  float* inner = scratch(kExperts3, a.M * a.top * a.gate_up.N);
#pragma omp parallel num_threads(threads())
  {
    Tiles tiles;
    mixing::few_part(a, inner, omp_get_thread_num(), omp_get_num_threads());
  }
}

}  // namespace ISA
