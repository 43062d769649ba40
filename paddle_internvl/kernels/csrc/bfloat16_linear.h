// Products in bfloat16 and what follows them in the same pass (linear_arguments.h).
//
// In: Blocks of x, a Weight of any kind. Out: floats or Blocks. Many rows: a thread packs a group of columns into its
// second-level cache and takes all rows of a chunk past it. Few rows (decoding): a thread streams its columns of the
// weight once and packs a few rows of W at a time.

#include "shares.h"

namespace ISA {
namespace halved {

constexpr long kShallow = 40;        // blocks of rows of W that are packed at once
constexpr long kPanels = 8;          // panels that stay in the second-level cache
constexpr long kTall = 64;           // blocks of rows that pass by them, at most
constexpr long kNear = 16;           // blocks of x that pass by all of them before the next: the first-level cache's
constexpr long kFewRows = 32;        // of x, which few_part takes at most
constexpr long kStreamed = 512;      // columns whose sums few_part keeps
constexpr long kStep = 2;            // blocks of rows of W between two looks at them

// A Linear whose x is Blocks, and whose result may be.
struct Product : Linear {
  static constexpr long row_parts = 1;  // bfloat16 that a number of x is the sum of
  Blocks from, to;                      // in place of x, and of out

  Product(const Linear& linear, const Blocks& x, const Blocks& result = {}) : Linear(linear), from(x), to(result) {}

  static void pack(const Weight& w, long column, long columns, long k, long blocks, long ahead, Half* panels, long apart) {
    pack_of(w.kind)(w, column, columns, k, blocks, ahead, panels, apart);
  }

  // Block b of rows of x, from block k of columns on.
  const Half* rows(long b, long k) const { return from.block(b, k); }

  // sums [32][32] = or, from k > 0 on, += block b of rows, from block k on, times a panel of w.
  void multiply(const Weight&, long, long b, long k, const Half* panel, long depth, float* sums, bool half,
                Meanwhile& meanwhile) const {
    ISA::multiply(rows(b, k), panel, depth, sums, k > 0, half, meanwhile);
  }
};

template <class Rows>
static Shares shares_of(const Rows& a) {
  const long deep = a.from.depth, panels = blocks_in(a.weight.N), weights = a.activation == Activation::kSwiglu ? 2 : 1;
  return ISA::shares_of(blocks_in(a.M), panels, deep, kShallow, kTall, kPanels, weights);
}

// Blocks of rows [first, end) times group `group` of panels.
template <class Rows>
static void piece(const Rows& a, const Shares& s, long group, long first, long end) {
  const bool pairs = a.activation == Activation::kSwiglu, once = s.depth == a.from.depth;
  const long all = blocks_in(a.weight.N), begin = s.first(group, all), panels = s.first(group + 1, all) - begin;
  const long column = begin * kSide, left = a.weight.N - column, size = s.depth * kSquare;
  const long wide = panels * kSide < left ? panels * kSide : left;
  const long products = (pairs ? 2 : 1) * panels;  // of a block of rows; panels of the second weight come last
  Half* packed = (Half*)scratch(kLinearPanels, products * size / 2);
  float* sums = scratch(kLinearSums, (once ? 2 : end - first) * products * kSquare);
  Meanwhile meanwhile;
  meanwhile.lines = (kSide * Rows::row_parts + products - 1) / products;
  for (long k = 0; k < a.from.depth; k += s.depth) {
    const long depth = a.from.depth - k < s.depth ? a.from.depth - k : s.depth;
    a.pack(a.weight, column, wide, k * kSide, depth, 16, packed, size);
    if (pairs) a.pack(a.up, column, wide, k * kSide, depth, 16, packed + panels * size, size);
    for (long b = first; b < end; b++) {
      const long rows = a.M - b * kSide < kSide ? a.M - b * kSide : kSide;
      float* here = sums + (once ? b % 2 : b - first) * products * kSquare;
      meanwhile.next = (const char*)a.rows(b + 1 < end ? b + 1 : first, k);
      for (long i = 0; i < depth; i += kNear)
        for (long p = 0; p < products; p++)
          a.multiply(p < panels ? a.weight : a.up, column + p % panels * kSide, b, k + i, packed + p * size + i * kSquare,
                     depth - i < kNear ? depth - i : kNear, here + p * kSquare, rows <= 16, meanwhile);
      meanwhile.before.finish();
      if (k + depth == a.from.depth)
        meanwhile.before = Epilogue(a, a.to, here, b * kSide, rows, column, panels, products * depth);
    }
  }
  meanwhile.before.finish();
}

template <class Rows>
static void many(const Rows& a) {
  const Shares s = shares_of(a);
  const long rows = blocks_in(a.M);
#pragma omp parallel num_threads(threads())
  {
    Tiles tiles;
#pragma omp for schedule(monotonic : dynamic, 1)
    for (long i = 0; i < s.groups * s.chunks; i++) {
      const long c = i / s.groups;
      piece(a, s, i % s.groups, rows * c / s.chunks, rows * (c + 1) / s.chunks);
    }
  }
}

// Thread `thread` of `count`'s part of a product of at most kFewRows rows. For use within a parallel region, with Tiles.
static void few_part(const Product& a, int thread, int count) {
  const bool pairs = a.activation == Activation::kSwiglu, half = a.M <= 16;
  const long panels = blocks_in(a.weight.N), first = panels * thread / count, end = panels * (thread + 1) / count;
  const long most = kStreamed / kSide, parts = pairs ? 2 : 1;
  float* sums = scratch(kLinearSums, most * parts * kSquare);
  Half* packed = (Half*)scratch(kLinearPanels, most * kStep * kSquare / 2);
  for (long p = first; p < end; p += most) {
    const long here = end - p < most ? end - p : most;
    for (long k = 0; k < a.from.depth; k += kStep) {
      const long steps = a.from.depth - k < kStep ? a.from.depth - k : kStep;
      for (int part = 0; part < parts; part++) {
        const Weight& w = part ? a.up : a.weight;
        const long column = p * kSide, left = w.N - column, wide = here * kSide < left ? here * kSide : left;
        pack_of(w.kind)(w, column, wide, k * kSide, steps, kStep * kSide, packed, kStep * kSquare);
        for (long i = 0; i < here; i++)
          multiply(a.from.block(0, k), packed + i * kStep * kSquare, steps, sums + (part * here + i) * kSquare, k > 0, half);
      }
    }
    Epilogue(a, a.to, sums, 0, a.M, p * kSide, here, 1).finish();
  }
}

static void multiply_all(const Product& a) {
  if (a.M > kFewRows) return many(a);
#pragma omp parallel num_threads(threads())
  {
    Tiles tiles;
    few_part(a, omp_get_thread_num(), omp_get_num_threads());
  }
}

}  // namespace halved

// Whether few rows are multiplied as in float32, but rounded where tiles multiply them.
static bool goes_few(const Weight& w, long rows) { return rows <= kExactRows || fits_few(w, rows); }

static void linear_halved(const Linear& a) {
  if (goes_few(a.weight, a.M)) {
    Linear few = a;
    few.rounded = true;
    return kernels().linear(few);
  }
  const Blocks x = blocks_of(kLinearRows, a.M, a.weight.K);
#pragma omp parallel for schedule(static) num_threads(threads())
  for (long r = 0; r < a.M; r++) take_row(a.x + r * a.x_stride, a.weight.K, x, r);
  halved::multiply_all({a, x});
}

}  // namespace ISA
