// Products of few rows (decoding), all of them beside each other, so that a weight is read once.
//
// In: a Linear. Out: a thread's part of its result (linear_part), for use within any parallel region.

namespace ISA {

// out[rows], `block` apart, = x times some columns of W. totals [rows][groups]: sums of x over every group, for offsets.
static void few(const Weight& w, const float* x, long x_stride, long rows, long column, long columns,
                const float* totals, float* out, float* part, long block) {
  for (long i = 0; i < rows * block; i += LANES) store(out + i, zero());
  if (const Digits* digits = digits_of(w, x, x_stride, rows)) {
    const long wide = columns / kWide * kWide;
    if (wide) few_digits(w, digits, rows, column, wide, totals, out, block);
    if (wide == columns) return;
    column += wide, columns -= wide, out += wide;
  }
  const Stream run = stream_of(w.kind, rows);
  if (!w.scales) return run(w, column, columns, 0, w.K, x, x_stride, out, block);
  const long groups = groups_of(w);
  for (long g = 0; g < groups; g++) {
    const long k = g * w.group, end = k + w.group < w.K ? k + w.group : w.K;
    const float *scale = w.scales + g * w.N + column, *offset = w.offsets ? w.offsets + g * w.N + column : nullptr;
    for (long r = 0; r < rows; r++)
      for (long c = 0; c < columns; c += LANES) store(part + r * block + c, zero());
    run(w, column, columns, k, end, x, x_stride, part, block);
    for (long c = 0; c < columns; c += LANES) {
      const V times = some(scale + c, columns - c), plus = offset ? some(offset + c, columns - c) : zero();
      for (long r = 0; r < rows; r++) {
        V sum = fma(load(part + r * block + c), times, load(out + r * block + c));
        if (offset) sum = fma(set(totals[r * groups + g]), plus, sum);
        store(out + r * block + c, sum);
      }
    }
  }
}

// Sums of x over every group of a weight with offsets; null without.
static const float* totals_of(const Weight& w, const float* x, long x_stride, long rows, Slot slot) {
  if (!w.offsets) return nullptr;
  const long groups = groups_of(w);
  float* made = scratch(slot, rows * groups);
  for (long r = 0; r < rows; r++)
    for (long g = 0; g < groups; g++) {
      float total = 0;
      for (long k = g * w.group; k < (g + 1) * w.group && k < w.K; k++) total += x[r * x_stride + k];
      made[r * groups + g] = total;
    }
  return made;
}

// Thread `thread` of `count`'s part of a product of few rows. For use within a parallel region; nothing is waited for.
static void linear_part(const Linear& a, int thread, int count) {
  const bool pairs = a.activation == Activation::kSwiglu;
  const long N = a.weight.N, units = (N + kPanel - 1) / kPanel;
  const long first = units * thread / count * kPanel, end = units * (thread + 1) / count * kPanel, last = end < N ? end : N;
  const long most = kSums / a.M / LANES * LANES, block = most < last - first ? most : (last - first + LANES - 1) / LANES * LANES;
  const float* totals = totals_of(a.weight, a.x, a.x_stride, a.M, kLinearRows);
  const float* more = pairs ? totals_of(a.up, a.x, a.x_stride, a.M, kLinearPanels) : nullptr;
  float *sums = scratch(kLinearSums, 3 * kSums), *up = sums + kSums, *part = up + kSums;
  for (long column = first; column < last; column += block) {
    const long columns = last - column < block ? last - column : block;
    few(a.weight, a.x, a.x_stride, a.M, column, columns, totals, sums, part, block);
    if (pairs) few(a.up, a.x, a.x_stride, a.M, column, columns, more, up, part, block);
    finish(a, sums, up, block, 0, a.M, column, columns);
  }
}

}  // namespace ISA
