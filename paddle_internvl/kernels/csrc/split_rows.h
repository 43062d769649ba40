// float32 rows as three bfloat16 parts, for products by AMX tiles whose results are float32's.
//
// A float32 has 24 bits and is the sum of three bfloat16 of 8 bits each; weights in bfloat16, int8 and int4 are bfloat16 as
// they are. Products of bfloat16 are exact in float32, and tiles add them up in float32.
//
// In: floats. Out: their parts (split).

#include "halves.h"

namespace ISA {

constexpr long kParts = 3;  // bfloat16 that a float32 is the sum of

INLINE __m512 floats_of(__m256i halves) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16)); }

// n of 32 floats as three bfloat16, largest first; the others zero. What is not finite has no other parts.
INLINE void split(const float* p, long n, __m512i part[kParts]) {
  __m512 low = _mm512_maskz_loadu_ps(first_lanes(n), p), high = _mm512_maskz_loadu_ps(first_lanes(n - 16), p + 16);
  const __mmask16 finite_low = ~_mm512_fpclass_ps_mask(low, 0x99), finite_high = ~_mm512_fpclass_ps_mask(high, 0x99);
#pragma GCC unroll 3
  for (int i = 0; i < kParts; i++) {
    part[i] = halves(low, high);
    low = _mm512_maskz_sub_ps(finite_low, low, floats_of(_mm512_castsi512_si256(part[i])));
    high = _mm512_maskz_sub_ps(finite_high, high, floats_of(_mm512_extracti64x4_epi64(part[i], 1)));
  }
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
