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
constexpr long kNear = 8;            // blocks of x that pass by all of them before the next: the first-level cache's
constexpr long kFewRows = 32;        // of x, which few_part takes at most
constexpr long kStreamed = 512;      // columns whose sums few_part keeps
constexpr long kStep = 2;            // blocks of rows of W between two looks at them

// A Linear whose x is Blocks, and whose result may be.
struct Product : Linear {
  Blocks from, to;  // in place of x, and of out

  Product(const Linear& linear, const Blocks& x, const Blocks& result = {}) : Linear(linear), from(x), to(result) {}

  static void pack(const Weight& w, long column, long columns, long k, long blocks, long ahead, Half* panels, long apart) {
    pack_of(w.kind)(w, column, columns, k, blocks, ahead, panels, apart);
  }

  // sums [32][32] = or, from k > 0 on, += block b of rows, from block k on, times a panel of w.
  void multiply(const Weight&, long, long b, long k, const Half* panel, long depth, float* sums, bool half) const {
    ISA::multiply(from.block(b, k), panel, depth, sums, k > 0, half);
  }
};

// sums [rows][32] and, of kSwiglu, `up` to where rows [row, row + rows) of columns from `column` on belong.
static void finish(const Product& a, const float* sums, const float* up, long row, long rows, long column, long columns) {
  V bias[2] = {}, scale[2];
  const bool whole = columns >= kSide;
  for (int v = 0; v < 2; v++) {
    const long n = columns - 16 * v;
    if (n <= 0) break;
    if (a.bias) bias[v] = some(a.bias + column + 16 * v, n);
    if (a.layer_scale) scale[v] = some(a.layer_scale + column + 16 * v, n);
  }
  for (long r = 0; r < rows; r++) {
    V y[2];
    for (int v = 0; v < 2; v++) {
      y[v] = load(sums + r * kSide + 16 * v) + bias[v];
      if (a.activation == Activation::kGelu) y[v] = gelu(y[v]);
      if (a.activation == Activation::kSwiglu) y[v] = silu(y[v]) * load(up + r * kSide + 16 * v);
      if (a.layer_scale) y[v] *= scale[v];
      const long n = columns - 16 * v;
      if (n <= 0 || a.to.at) continue;
      const long first = (row + r) * a.out_stride, at = column + 16 * v;
      if (a.residual) y[v] += some(a.residual + first + at, n);
      float* to = a.out + first + place_of(a, at);
      if (n >= 16) store(to, y[v]);
      else store_first(to, y[v], n);
    }
    if (!a.to.at) continue;
    __m512i both = halves((__m512)y[0], (__m512)y[1]);
    if (!whole) both = _mm512_maskz_mov_epi16(first_halves(columns), both);
    _mm512_store_si512(a.to.row(row + r, column / kSide), both);
  }
}

template <class Rows>
static Shares shares_of(const Rows& a) {
  const long deep = a.from.depth, panels = blocks_in(a.weight.N);
  return ISA::shares_of(blocks_in(a.M), panels, deep, kShallow, kTall, kPanels);
}

// Blocks of rows [first, end) times group `group` of panels.
template <class Rows>
static void piece(const Rows& a, const Shares& s, long group, long first, long end) {
  const bool pairs = a.activation == Activation::kSwiglu, once = s.depth == a.from.depth;
  const long all = blocks_in(a.weight.N), begin = s.first(group, all), panels = s.first(group + 1, all) - begin;
  const long column = begin * kSide, left = a.weight.N - column, parts = pairs ? 2 : 1, size = s.depth * kSquare;
  const long wide = panels * kSide < left ? panels * kSide : left;
  Half* packed = (Half*)scratch(kLinearPanels, s.panels * parts * size / 2);
  float* sums = scratch(kLinearSums, (once ? 1 : end - first) * s.panels * parts * kSquare);
  for (long k = 0; k < a.from.depth; k += s.depth) {
    const long depth = a.from.depth - k < s.depth ? a.from.depth - k : s.depth;
    for (int part = 0; part < parts; part++) {
      const Weight& w = part ? a.up : a.weight;
      a.pack(w, column, wide, k * kSide, depth, 16, packed + part * panels * size, size);
    }
    for (long b = first; b < end; b++) {
      const long rows = a.M - b * kSide < kSide ? a.M - b * kSide : kSide;
      float* here = sums + (once ? 0 : (b - first) * panels * parts * kSquare);  // [parts][panels], as packed
      for (long i = 0; i < depth; i += kNear)
        for (long p = 0; p < parts * panels; p++)
          a.multiply(p < panels ? a.weight : a.up, column + p % panels * kSide, b, k + i, packed + p * size + i * kSquare,
                     depth - i < kNear ? depth - i : kNear, here + p * kSquare, rows <= 16);
      for (long p = 0; p < panels && k + depth == a.from.depth; p++)
        finish(a, here + p * kSquare, here + (panels + p) * kSquare, b * kSide, rows, column + p * kSide, left - p * kSide);
    }
  }
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
          multiply(a.from.block(0, k), packed + i * kStep * kSquare, steps, sums + (i * parts + part) * kSquare, k > 0, half);
      }
    }
    for (long i = 0; i < here; i++) {
      const float* done = sums + i * parts * kSquare;
      const long column = (p + i) * kSide;
      finish(a, done, done + kSquare, 0, a.M, column, a.weight.N - column);
    }
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
