// float32 rows as three bfloat16 parts, for products by AMX tiles whose results are float32's.
//
// A float32 has 24 bits and is the sum of three bfloat16 of 8 bits each; weights in bfloat16, int8 and int4 are bfloat16 as
// they are. Products of bfloat16 are exact in float32, and tiles add them up in float32.
//
// In: floats. Out: their parts (split); of few rows as tiles (split_parts).

#include "halves.h"

namespace ISA {

constexpr long kParts = 3;      // bfloat16 that a float32 is the sum of
constexpr long kFewRows = 16;   // rows of x of a product of few rows, at most
constexpr long kTileRows = 3;   // and at least on tiles, with int4
constexpr long kMoreRows = 5;   // with bfloat16 and int8: fewer rows take no longer than reading without tiles
constexpr long kTall = 16;      // rows of a tile
constexpr long kEach = kTall * kSide;  // halves of a tile

INLINE __m512 floats_of(__m256i halves) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16)); }

// n of 32 floats as three bfloat16, or the first of them, largest first; the others zero. What is not finite has no other parts.
template <long parts = kParts>
INLINE void split(const float* p, long n, __m512i part[parts]) {
  __m512 low = _mm512_maskz_loadu_ps(first_lanes(n), p), high = _mm512_maskz_loadu_ps(first_lanes(n - 16), p + 16);
  const __mmask16 finite_low = ~_mm512_fpclass_ps_mask(low, 0x99), finite_high = ~_mm512_fpclass_ps_mask(high, 0x99);
#pragma GCC unroll 3
  for (int i = 0; i < parts; i++) {
    part[i] = halves(low, high);
    low = _mm512_maskz_sub_ps(finite_low, low, floats_of(_mm512_castsi512_si256(part[i])));
    high = _mm512_maskz_sub_ps(finite_high, high, floats_of(_mm512_extracti64x4_epi64(part[i], 1)));
  }
}

// Rows of x as tiles, [steps along W][tiles][16 rows][64 bytes].
struct Parts {
  void* at = nullptr;
  long rows = 0, tiles = 0;
  long slots = 0;                 // parts of a row in a tile
  const float* scales = nullptr;  // of digits (digit_tiles.h), of which a row has three beside each other
};

// The end of the rows of W from k on that are `most` at most and share scales.
INLINE long end_of(const Weight& w, long k, long most) {
  const long border = w.scales ? (k / w.group + 1) * w.group : w.K, end = border < w.K ? border : w.K;
  return k + most < end ? k + most : end;
}

// Steps along W, each as far as end_of says.
INLINE long steps_of(const Weight& w, long most) {
  long steps = 0;
  for (long k = 0; k < w.K; k = end_of(w, k, most)) steps++;
  return steps;
}

// Rows as tiles of bfloat16, of all parts of at most 5 rows, two parts of at most 8, or one part of at most 16: row
// slot * rows + r of tile t is part t * slots + slot of row r. Of rows that are rounded there is one part.
template <long parts>
static Parts split_parts(const Weight& w, const float* x, long x_stride, long rows) {
  const long slots = parts == 1 ? 1 : rows <= 5 ? 3 : rows <= 8 ? 2 : 1;
  const long tiles = (parts + slots - 1) / slots, size = tiles * kEach, steps = steps_of(w, kSide);
  Half* at = (Half*)scratch(kLinearDigits, steps * size / 2);
  __builtin_memset(at, 0, steps * size * sizeof(Half));
  Half* to = at;
  for (long k = 0, end; k < w.K; k = end, to += size) {
    end = end_of(w, k, kSide);
    for (long r = 0; r < rows; r++) {
      __m512i part[parts];
      split<parts>(x + r * x_stride + k, end - k, part);
      for (long i = 0; i < parts; i++) _mm512_store_si512(to + i / slots * kEach + (i % slots * rows + r) * kSide, part[i]);
    }
  }
  return {at, rows, tiles, slots};
}

// Whether the scales of integers are those of whole blocks.
static bool fits_integers(const Weight& w) {
  return (w.kind == Kind::kInt8 || w.kind == Kind::kInt4) && (w.group % kSide == 0 || w.group >= w.K);
}

// Whether products of many rows with such a weight go to tiles (split_many.h), and whether one does.
static bool fits_split(const Weight& w) { return w.kind == Kind::kBFloat16 || fits_integers(w); }
static bool fits_split(const Linear& a) {
  const bool alike = !a.weight.offsets == !a.up.offsets && groups_of(a.weight) == groups_of(a.up);
  const bool second = a.activation != Activation::kSwiglu || (fits_split(a.up) && alike);
  return fits_split(a.weight) && second && !a.x_tiles && !a.out_tiles;
}
static void linear_split(const Linear& a);

}  // namespace ISA
