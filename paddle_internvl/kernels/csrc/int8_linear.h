// Products of many rows in int8 and what follows them in the same pass (linear_arguments.h).
//
// In: a Linear of an int8 or int4 weight. Out: its result. A thread packs a group of columns into its second-level cache
// and takes all rows of a chunk past it.

#include "shares.h"

namespace ISA {
namespace int8 {

constexpr long kShallow = 20;      // blocks of rows of W that are packed at once
constexpr long kBytes = 1 << 20;   // of x that stay in the second-level cache
constexpr long kPanels = 8;        // panels that pass by them at a time

static Shares shares_of(const Linear& a, long deep) {
  const long pairs = blocks_in(a.weight.N, 2 * kSide);  // of panels, which are packed together
  return ISA::shares_of(blocks_in(a.M, kSide), pairs, deep, kShallow, kBytes / (deep * kBlock), kPanels, 2);
}

// int32 sums [rows][32] of rows from `row` on as floats, in their own memory.
static const float* scaled_sums(const Rows& x, const float* scales, int32_t* sums, long row, long rows) {
  float* out = (float*)sums;
  for (long r = 0; r < rows; r++)
    for (long c = 0; c < kSide; c += LANES)
      store(out + r * kSide + c, __builtin_convertvector(raw<I>(sums + r * kSide + c), V) * (set(x.scales[row + r]) * load(scales + c)));
  return out;
}

// Blocks of rows [first, end) times group `group` of pairs of panels.
static void piece(const Linear& a, const Rows& x, const Shares& s, long group, long first, long end) {
  const long all = blocks_in(a.weight.N, 2 * kSide), begin = s.first(group, all), pairs = s.first(group + 1, all) - begin;
  const long column = begin * 2 * kSide, left = a.weight.N - column, columns = left < pairs * 2 * kSide ? left : pairs * 2 * kSide;
  const long panels = blocks_in(columns, kSide), apart = 2 * pairs, size = s.depth * kBlock, square = kSide * kSide;
  const long parts = a.activation == Activation::kSwiglu ? 2 : 1;
  const bool once = s.depth == x.depth;
  int8_t* packed = (int8_t*)scratch(kLinearPanels, parts * 2 * s.panels * size / 4);
  int32_t* sums = (int32_t*)scratch(kLinearSums, (once ? 1 : end - first) * parts * 2 * s.panels * square);
  const long floats = floats_of(a.weight, columns);
  float* memory = scratch(kLinearDigits, floats + (parts > 1 ? floats_of(a.up, columns) : 0));
  Columns to8[2];
  for (int part = 0; part < parts; part++) to8[part] = columns_of(part ? a.up : a.weight, column, columns, memory + part * floats);
  for (long k = 0; k < x.depth; k += s.depth) {
    const long depth = x.depth - k < s.depth ? x.depth - k : s.depth;
    for (int part = 0; part < parts; part++) {
      const Weight& w = part ? a.up : a.weight;
      (w.kind == Kind::kInt4 ? pack<Kind::kInt4> : pack<Kind::kInt8>)(w, to8[part], column, columns, k * kStep, depth,
                                                                     packed + part * apart * size, size);
    }
    for (long b = first; b < end; b++) {
      const long row = b * kSide, rows = a.M - row < kSide ? a.M - row : kSide;
      int32_t* here = sums + (once ? 0 : (b - first) * parts * apart * square);  // [parts][panels], as packed
      for (int part = 0; part < parts; part++)
        for (long p = part * apart; p < part * apart + panels; p++)
          multiply(x.block(b, k), packed + p * size, depth, here + p * square, k > 0, rows <= 16, x.totals + row);
      for (long p = 0; p < panels && k + depth == x.depth; p++) {
        const long wide = columns - p * kSide < kSide ? columns - p * kSide : kSide;
        const float* done[2];
        for (int part = 0; part < parts; part++)
          done[part] = scaled_sums(x, to8[part].scales + p * kSide, here + (part * apart + p) * square, row, rows);
        finish(a, done[0], done[parts - 1], kSide, row, rows, column + p * kSide, wide);
      }
    }
  }
}

static void linear(const Linear& a) {
  const Rows x = rows_of(kLinearRows, a.M, a.weight.K);
  const Shares s = shares_of(a, x.depth);
  const long rows = blocks_in(a.M, kSide);
#pragma omp parallel num_threads(threads())
  {
#pragma omp for schedule(static)
    for (long r = 0; r < a.M; r++) take_row(a.x + r * a.x_stride, a.weight.K, x, r);
    Tiles tiles;
#pragma omp for schedule(monotonic : dynamic, 1)
    for (long i = 0; i < s.groups * s.chunks; i++) {
      const long c = i / s.groups;
      piece(a, x, s, i % s.groups, rows * c / s.chunks, rows * (c + 1) / s.chunks);
    }
  }
}

}  // namespace int8
}  // namespace ISA
