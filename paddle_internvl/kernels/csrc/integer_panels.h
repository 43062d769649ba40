// int8 and int4 weights as bfloat16 panels, exactly: scales are multiplied later (split_many.h).
//
// In: rows of W. Out: panels (take_panels).

namespace ISA {

constexpr long kGrouped = 64;  // rows of W that are taken together

// Rows k and k + 1 of integers, of which `at` is the first, beside each other as bfloat16: n of 32 columns, the others
// zero. Without `both` the second row is zero, or anything in int4.
template <Kind kind, bool all>
INLINE void pack_integers(const char* at, long pitch, long n, bool both, Half* to) {
  const __m512i low = _mm512_setr_epi32(0, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0xc100, 0xc0e0, 0xc0c0,
                                        0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80);  // 0 to 7 and -8 to -1 as bfloat16
  const __m512i high = _mm512_slli_epi32(low, 16);
#pragma GCC unroll 2
  for (int c = 0; c < 32; c += 16) {
    const __mmask16 here = all ? 0xffff : first_lanes(n - c);
    const __m128i one = _mm_maskz_loadu_epi8(here, at + c);
    __m512i pairs;
    if constexpr (kind == Kind::kInt4) {
      const __m512i bytes = _mm512_cvtepu8_epi32(one);  // a permutation takes its index from the lowest four bits
      pairs = _mm512_or_si512(_mm512_permutexvar_epi32(bytes, low), _mm512_permutexvar_epi32(_mm512_srli_epi32(bytes, 4), high));
    } else {
      const __m128i two = _mm_maskz_loadu_epi8(all || both ? here : 0, at + pitch + c);
      const __m512i even = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(one)));
      const __m512i odd = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(two)));
      pairs = _mm512_or_si512(_mm512_srli_epi32(even, 16), odd);
    }
    _mm512_store_si512(to + 2 * c, pairs);
  }
}

// Rows [k, end) of n columns of W, of which `at` is the first, as panels; `soon`, if there is one, is fetched.
template <Kind kind>
INLINE void take_panels(const char* at, long pitch, long k, long end, long n, const char* soon, Half* panels) {
  constexpr long shared = rows_in_a_byte(kind);
  if (end - k == kGrouped && n >= kSide) {
#pragma GCC unroll 4
    for (long i = 0; i < kGrouped; i += 2) {
      if (soon) {
        prefetch(soon + i / shared * pitch);
        if (shared == 1) prefetch(soon + i / shared * pitch + pitch);
      }
      pack_integers<kind, true>(at + i / shared * pitch, pitch, n, true, panels + i * kSide);
    }
    return;
  }
  for (long i = 0; i < blocks_in(end - k) * kSide; i += 2) {
    _mm512_store_si512(panels + i * kSide, __m512i{});
    _mm512_store_si512(panels + i * kSide + kSide, __m512i{});
    if (k + i < end) pack_integers<kind, false>(at + i / shared * pitch, pitch, n, k + i + 1 < end, panels + i * kSide);
  }
}

}  // namespace ISA
