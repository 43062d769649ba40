// One product of blocks by AVX512-BF16: dot products of pairs, 16 sums an instruction.
//
// In: 32 rows of blocks, a panel. Out: their sums [32][32].

namespace ISA {

// Rows [0, R) of a block.
template <int R>
static void multiply_rows(const Half* rows, const Half* panel, long steps, float* sums, bool more) {
  __m512 sum[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) sum[r][v] = more ? _mm512_loadu_ps(sums + r * kSide + 16 * v) : _mm512_setzero_ps();
  for (long k = 0; k < steps; k++, rows += kSquare, panel += kSquare)
    for (long i = 0; i < kSide; i += 2) {
      const __m512bh low = (__m512bh)_mm512_load_si512(panel + i * kSide);
      const __m512bh high = (__m512bh)_mm512_load_si512(panel + i * kSide + kSide);
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) {
        int32_t pair;
        __builtin_memcpy(&pair, rows + r * kSide + i, 4);
        const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
        sum[r][0] = _mm512_dpbf16_ps(sum[r][0], x, low);
        sum[r][1] = _mm512_dpbf16_ps(sum[r][1], x, high);
      }
    }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) _mm512_storeu_ps(sums + r * kSide + 16 * v, sum[r][v]);
}

// sums [32][32] = or += `steps` blocks of 32 rows times as many of a panel; with `half` only the first 16 rows. Vectors leave no
// time for other work, which only tiles do meanwhile (bfloat16_amx.h).
template <class... Work>
static void multiply(const Half* rows, const Half* panel, long steps, float* sums, bool more, bool half, Work&&...) {
  multiply_rows<8>(rows, panel, steps, sums, more);
  multiply_rows<8>(rows + 8 * kSide, panel, steps, sums + 8 * kSide, more);
  if (half) return;
  multiply_rows<8>(rows + 16 * kSide, panel, steps, sums + 16 * kSide, more);
  multiply_rows<8>(rows + 24 * kSide, panel, steps, sums + 24 * kSide, more);
}

}  // namespace ISA
