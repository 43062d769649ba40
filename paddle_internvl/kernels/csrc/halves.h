// Vectors of bfloat16, and the panels that products of them take.
//
// In: floats, rows of W. Out: bfloat16; panels of 32 rows x 32 columns, of which two rows lie beside each other,
// [16 pairs][32 columns][2].
#pragma once

namespace ISA {

typedef uint16_t Half;           // a bfloat16
constexpr long kSide = 32;       // rows and columns of a panel
constexpr long kSquare = kSide * kSide;

static long blocks_in(long n) { return (n + kSide - 1) / kSide; }

INLINE __mmask16 first_lanes(long n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1; }
INLINE __mmask32 first_halves(long n) { return n >= 32 ? ~0u : n <= 0 ? 0 : (1u << n) - 1; }

// 32 numbers rounded.
INLINE __m512i halves(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

// Rows k and k + 1 of 32 columns beside each other, [32][2].
INLINE void store_pairs(Half* to, __m512i even, __m512i odd) {
  const __m512i low = _mm512_unpacklo_epi16(even, odd), high = _mm512_unpackhi_epi16(even, odd);
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  _mm512_store_si512(to, _mm512_permutex2var_epi64(low, first, high));
  _mm512_store_si512(to + kSide, _mm512_permutex2var_epi64(low, second, high));
}

}  // namespace ISA
