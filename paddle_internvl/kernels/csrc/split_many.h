// Products of many rows (prefill, vision) by AMX tiles, in float32: the three parts of rows of x, each of them times the same
// panels. See split_rows.h and bfloat16_linear.h.
//
// Integers become panels as they are; sums over a group of rows of W are multiplied by its scales.
//
// In: a Linear whose weights fit (fits_split). Out: its result (linear_split).

namespace ISA {

constexpr long kTriple = kParts * kSquare;  // the parts of 32 x 32 numbers

// sums [32][32] = or += `steps` blocks [3 parts][32][32] times as many of a panel; with `half` only the first 16 rows.
static void multiply_parts(const Half* rows, const Half* panel, long steps, float* sums, bool more, bool half,
                           Meanwhile& meanwhile) {
  multiply_tiles<BFloat16Products, kParts>(rows, panel, steps, sums, more, half, meanwhile);
}

// Sums of a group of rows of W, which are to be multiplied by its scales and added to others.
struct Grouped {
  const float *part = nullptr, *scales, *offsets;
  const float* totals;  // of each row of x over the group, `groups` apart: for offsets
  long groups, n;       // n: columns

  void add(float* sums, long rows) const {
    for (long c = 0; part && c < kSide && c < n; c += 16) {
      const __mmask16 here = first_lanes(n - c);
      const __m512 scale = _mm512_maskz_loadu_ps(here, scales + c);
      const __m512 offset = offsets ? _mm512_maskz_loadu_ps(here, offsets + c) : _mm512_setzero_ps();
      for (long r = 0; r < rows; r++) {
        float* to = sums + r * kSide + c;
        __m512 sum = _mm512_fmadd_ps(_mm512_load_ps(part + r * kSide + c), scale, _mm512_load_ps(to));
        if (offsets) sum = _mm512_fmadd_ps(_mm512_set1_ps(totals[r * groups]), offset, sum);
        _mm512_store_ps(to, sum);
      }
    }
  }
};

// Rows [k, k + 32 blocks) of `columns` columns of integers as panels, as `pack` does.
template <Kind kind>
static void pack_whole(const Weight& w, long column, long columns, long k, long blocks, long ahead, Half* to, long apart) {
  constexpr long shared = rows_in_a_byte(kind);
  const long soon = ahead / shared * w.N;
  const long last = k + blocks * kSide < w.K ? k + blocks * kSide : w.K;
  for (long end; k < last; k = end, to += kGrouped * kSide) {
    end = k + kGrouped < last ? k + kGrouped : last;
    const char* at = (const char*)w.data + k / shared * w.N + column;
    for (long c = 0; c < columns; c += kSide)
      take_panels<kind>(at + c, w.N, k, end, columns - c, c % 64 ? nullptr : at + c + soon, to + c / kSide * apart);
  }
}

// A Linear whose rows are split. Each block of 32 x 32 numbers is three.
struct SplitProduct : halved::Product {
  static constexpr long row_parts = kParts;
  const float* totals = nullptr;  // [M][groups] of both weights, where there are offsets

  using Product::Product;

  Half* rows(long b, long k) const { return from.at + (b * from.depth + k) * kTriple; }

  static void pack(const Weight& w, long column, long columns, long k, long blocks, long ahead, Half* to, long apart) {
    static_assert(kGrouped % kSide == 0, "whole blocks");
    (w.kind == Kind::kBFloat16 ? pack_of(w.kind) : w.kind == Kind::kInt8 ? pack_whole<Kind::kInt8> : pack_whole<Kind::kInt4>)(
        w, column, columns, k, blocks, ahead, to, apart);
  }

  void multiply(const Weight& w, long column, long b, long k, const Half* panel, long depth, float* sums, bool half,
                Meanwhile& meanwhile) const {
    if (!w.scales) return multiply_parts(rows(b, k), panel, depth, sums, k > 0, half, meanwhile);
    const long groups = groups_of(w), each = groups > 1 ? w.group / kSide : from.depth;
    const long here = M - b * kSide < kSide ? M - b * kSide : kSide;
    if (!k) __builtin_memset(sums, 0, kSquare * sizeof(float));
    alignas(64) float part[2][kSquare];  // of this group, and of the one before, which is added meanwhile
    Grouped done;
    for (long i = 0, end, g = k / each; i < depth; i = end, g++) {
      end = (g + 1) * each - k < depth ? (g + 1) * each - k : depth;
      multiply_parts(rows(b, k + i), panel + i * kSquare, end - i, part[g % 2], false, half, meanwhile);
      done.add(sums, here);
      const long at = g * w.N + column;
      done = {part[g % 2], w.scales + at, nullptr, nullptr, groups, w.N - column};
      if (w.offsets && k + i == g * each) done.offsets = w.offsets + at, done.totals = totals + b * kSide * groups + g;  // once
    }
    done.add(sums, here);
  }
};

static void linear_split(const Linear& a) {
  const long depth = blocks_in(a.weight.K), groups = groups_of(a.weight);
  float* totals = a.weight.offsets ? scratch(kLinearRows, a.M * groups) : nullptr;
  SplitProduct product(a, {(Half*)scratch(kLinearDigits, blocks_in(a.M) * depth * kTriple / 2), depth});
  product.totals = totals;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads())
  for (long b = 0; b < blocks_in(a.M); b++)
    for (long k = 0; k < depth; k++)
      for (long r = b * kSide; r < a.M && r < (b + 1) * kSide; r++) {
        __m512i part[kParts];
        split(a.x + r * a.x_stride + k * kSide, a.weight.K - k * kSide, part);
        for (long i = 0; i < kParts; i++) _mm512_store_si512(product.rows(b, k) + i * kSquare + r % kSide * kSide, part[i]);
      }
  if (totals)
#pragma omp parallel for schedule(static) num_threads(threads())
    for (long r = 0; r < a.M; r++)
      for (long g = 0; g < groups; g++) totals[r * groups + g] = total_of(a.weight, a.x + r * a.x_stride, g);
  halved::many(product);
}

}  // namespace ISA
