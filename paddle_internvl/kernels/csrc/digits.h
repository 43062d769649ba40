// Numbers as digits, for products with integer weights: kShared of them share a scale and have three digits of 8 bits each,
// about as many bits as a float32 has. Products of digits and weights are whole numbers, whose sums are exact.
//
// In: floats, rows of bytes, sums. Out: digits (take_digits), rows beside each other (interleave), floats (digits_sum).

namespace ISA {

constexpr long kDeep = 16;      // rows of W, and numbers of x, that are worked on together
constexpr long kShared = 64;    // numbers of x that share a scale
constexpr int kDigits = 3;      // of a number
constexpr float kLargest = 8355000;  // of x as a whole number; rounded or not it has three digits: 127 in each is 8355711

#if LANES == 16 && defined(__x86_64__)
// The digits of n of 64 numbers, which share a scale: the highest ones first, [3][64], in the order in which rows of W meet in
// a vector, behind the n zero. Returns the scale, NaN where one is not finite.
INLINE float take_digits(const float* x, long n, bool nibbles, int8_t* to) {
  const __m128i order = nibbles ? _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)
                                : _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512 all[kShared / kDeep], top = _mm512_set1_ps(1e-30f);
  __mmask16 wild = 0;  // not finite
#pragma GCC unroll 4
  for (int v = 0; v < kShared / kDeep; v++) {
    const long here = n - v * kDeep;
    all[v] = _mm512_maskz_loadu_ps(here >= kDeep ? 0xffff : here <= 0 ? 0 : (1u << here) - 1, x + v * kDeep);
    top = _mm512_max_ps(top, _mm512_abs_ps(all[v]));
    wild |= _mm512_fpclass_ps_mask(all[v], 0x99);
  }
  const float largest = _mm512_reduce_max_ps(top);
#pragma GCC unroll 4
  for (int v = 0; v < kShared / kDeep; v++) {
    __m512i left = _mm512_cvtps_epi32(_mm512_mul_ps(all[v], _mm512_set1_ps(kLargest / largest)));
    for (int d = kDigits - 1; d >= 0; d--) {
      const __m512i digit = _mm512_srai_epi32(_mm512_slli_epi32(left, 24), 24);
      left = _mm512_srai_epi32(_mm512_sub_epi32(left, digit), 8);
      _mm_storeu_si128((__m128i*)(to + d * kShared + v * kDeep), _mm_shuffle_epi8(_mm512_cvtepi32_epi8(digit), order));
    }
  }
  return wild ? __builtin_nanf("") : largest / kLargest;
}

// Four rows [64] of bytes as four vectors [16 columns][4 rows], of columns 16 lane + 4 j + 0..3.
INLINE void interleave(const __m512i row[4], __m512i out[4]) {
  const __m512i low1 = _mm512_unpacklo_epi8(row[0], row[1]), high1 = _mm512_unpackhi_epi8(row[0], row[1]);
  const __m512i low2 = _mm512_unpacklo_epi8(row[2], row[3]), high2 = _mm512_unpackhi_epi8(row[2], row[3]);
  out[0] = _mm512_unpacklo_epi16(low1, low2);
  out[1] = _mm512_unpackhi_epi16(low1, low2);
  out[2] = _mm512_unpacklo_epi16(high1, high2);
  out[3] = _mm512_unpackhi_epi16(high1, high2);
}

// Columns 16 j + 4 lane + 0..3 of vector j to 16 lane + 4 j + 0..3, or back.
INLINE void turn_lanes(__m512 v[4]) {
  const __m512 a = _mm512_shuffle_f32x4(v[0], v[1], 0x44), b = _mm512_shuffle_f32x4(v[2], v[3], 0x44);
  const __m512 c = _mm512_shuffle_f32x4(v[0], v[1], 0xEE), d = _mm512_shuffle_f32x4(v[2], v[3], 0xEE);
  v[0] = _mm512_shuffle_f32x4(a, b, 0x88);
  v[1] = _mm512_shuffle_f32x4(a, b, 0xDD);
  v[2] = _mm512_shuffle_f32x4(c, d, 0x88);
  v[3] = _mm512_shuffle_f32x4(c, d, 0xDD);
}

// What sums of products with the three digits are together.
INLINE __m512 digits_sum(__m512i high, __m512i middle, __m512i low) {
  const __m512 both = _mm512_fmadd_ps(_mm512_cvtepi32_ps(middle), _mm512_set1_ps(256), _mm512_cvtepi32_ps(low));
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_set1_ps(65536), both);
}
#endif

}  // namespace ISA
