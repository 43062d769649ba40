// bfloat16 matrices as the products take them: activations in blocks of 32 x 32, weights in panels of 32 columns.
//
// In: floats, a Weight. Out: Blocks; panels, in which two rows of W lie beside each other, [K / 2][32 columns][2].

#include "halves.h"

namespace ISA {

// A matrix [rows, 32 depth] as blocks [rows / 32][depth][32][32]. Columns behind the matrix's own are zero; rows behind
// its own are anything.
struct Blocks {
  Half* at = nullptr;
  long depth = 0;

  Half* row(long r, long k) const { return at + (r / kSide * depth + k) * kSquare + r % kSide * kSide; }
  Half* block(long r, long k) const { return at + (r * depth + k) * kSquare; }
};

static Blocks blocks_of(Slot slot, long rows, long columns) {
  const long depth = blocks_in(columns);
  return {(Half*)scratch(slot, blocks_in(rows) * depth * kSquare / 2), depth};
}

// n of 32 floats, the others zero.
INLINE __m512i halves(const float* p, long n) {
  return halves(_mm512_maskz_loadu_ps(first_lanes(n), p), _mm512_maskz_loadu_ps(first_lanes(n - 16), p + 16));
}

// Row r of x [width] into blocks.
static void take_row(const float* x, long width, const Blocks& to, long r) {
  for (long k = 0; k < to.depth; k++) _mm512_store_si512(to.row(r, k), halves(x + k * kSide, width - k * kSide));
}

// 32 integers as floats times their scales, rounded.
INLINE __m512i scaled_halves(const Weight& w, __m512i low, __m512i high, long k, long column, long n) {
  const long at = k / w.group * w.N + column;
  const __mmask16 m1 = first_lanes(n), m2 = first_lanes(n - 16);
  __m512 a = _mm512_mul_ps(_mm512_cvtepi32_ps(low), _mm512_maskz_loadu_ps(m1, w.scales + at));
  __m512 b = _mm512_mul_ps(_mm512_cvtepi32_ps(high), _mm512_maskz_loadu_ps(m2, w.scales + at + 16));
  if (w.offsets) {
    a = _mm512_add_ps(a, _mm512_maskz_loadu_ps(m1, w.offsets + at));
    b = _mm512_add_ps(b, _mm512_maskz_loadu_ps(m2, w.offsets + at + 16));
  }
  return halves(a, b);
}

// Rows k and k + 1 (where it is below K, else zeros) of n columns, those behind them zero.
template <Kind kind>
INLINE void take_pair(const Weight& w, long k, long column, long n, __m512i& even, __m512i& odd) {
  const bool both = k + 1 < w.K;
  odd = _mm512_setzero_si512();
  if constexpr (kind == Kind::kBFloat16) {
    const Half* at = (const Half*)w.data + k * w.N + column;
    even = _mm512_maskz_loadu_epi16(first_halves(n), at);
    if (both) odd = _mm512_maskz_loadu_epi16(first_halves(n), at + w.N);
  } else if constexpr (kind == Kind::kFloat32) {
    const float* at = (const float*)w.data + k * w.N + column;
    even = halves(at, n);
    if (both) odd = halves(at + w.N, n);
  } else if constexpr (kind == Kind::kInt8) {
    const int8_t* at = (const int8_t*)w.data + k * w.N + column;
    const __m256i one = _mm256_maskz_loadu_epi8(first_halves(n), at);
    even = scaled_halves(w, _mm512_cvtepi8_epi32(_mm256_castsi256_si128(one)),
                         _mm512_cvtepi8_epi32(_mm256_extracti128_si256(one, 1)), k, column, n);
    if (!both) return;
    const __m256i two = _mm256_maskz_loadu_epi8(first_halves(n), at + w.N);
    odd = scaled_halves(w, _mm512_cvtepi8_epi32(_mm256_castsi256_si128(two)),
                        _mm512_cvtepi8_epi32(_mm256_extracti128_si256(two, 1)), k + 1, column, n);
  } else {
    const uint8_t* at = (const uint8_t*)w.data + k / 2 * w.N + column;
    const __m256i bytes = _mm256_maskz_loadu_epi8(first_halves(n), at);
    const __m512i a = _mm512_cvtepu8_epi32(_mm256_castsi256_si128(bytes));
    const __m512i b = _mm512_cvtepu8_epi32(_mm256_extracti128_si256(bytes, 1));
    even = scaled_halves(w, _mm512_srai_epi32(_mm512_slli_epi32(a, 28), 28),
                         _mm512_srai_epi32(_mm512_slli_epi32(b, 28), 28), k, column, n);
    if (both)
      odd = scaled_halves(w, _mm512_srai_epi32(_mm512_slli_epi32(a, 24), 28),
                          _mm512_srai_epi32(_mm512_slli_epi32(b, 24), 28), k + 1, column, n);
  }
}

// Rows [k, k + 32 blocks) of `columns` columns as panels, `apart` from one to the next; rows and columns that are not
// there are zero. A row's columns are taken together: another row lies on another page. Rows `ahead` further on are fetched.
template <Kind kind>
static void pack(const Weight& w, long column, long columns, long k, long blocks, long ahead, Half* to, long apart) {
  const long pitch = row_bytes(kind, w.N), shared = rows_in_a_byte(kind);
  const char* soon = (const char*)w.data + row_bytes(kind, column) + (k + ahead) / shared * pitch;
  const long end = k + blocks * kSide, last = end < w.K ? end : w.K;
  for (; k < end; k += 2, to += 2 * kSide, soon += 2 / shared * pitch) {
    Half* here = to;
    for (long c = 0; c < columns; c += kSide, here += apart) {
      prefetch(soon + row_bytes(kind, c));
      if (shared == 1) prefetch(soon + row_bytes(kind, c) + pitch);
      __m512i even = {}, odd = {};
      if (k < last) take_pair<kind>(w, k, column + c, columns - c, even, odd);
      store_pairs(here, even, odd);
    }
  }
}

typedef void (*Pack)(const Weight&, long, long, long, long, long, Half*, long);

static Pack pack_of(Kind kind) {
  return kind == Kind::kFloat32    ? pack<Kind::kFloat32>
         : kind == Kind::kBFloat16 ? pack<Kind::kBFloat16>
         : kind == Kind::kInt8     ? pack<Kind::kInt8>
                                   : pack<Kind::kInt4>;
}

}  // namespace ISA
