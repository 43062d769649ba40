// One product of int8 blocks by VNNI: four byte products an instruction and lane, of AVX512 or, of 8 lanes, of AVX-VNNI.
//
// The instruction takes unsigned numbers times signed ones: weights are multiplied as numbers from 0 on, 128 more than
// they are, and each row's sums start at what that makes too much.

namespace ISA {

struct Tiles {};  // see thread_tiles.h

namespace int8 {

constexpr int kFlip = 128;                   // is added to weights
constexpr int kRows = LANES == 16 ? 8 : 4;   // whose sums stay in registers
constexpr int kWide = LANES == 16 ? 32 : 16; // columns of them

INLINE I add_products(I sum, I weights, I x) {
#if LANES == 16
  return (I)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, (__m512i)x);
#else
  return (I)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)weights, (__m256i)x);
#endif
}

// Rows [0, kRows) of a block, columns [0, kWide) of a panel.
static void multiply_rows(const int8_t* rows, const int8_t* panel, long steps, int32_t* sums, bool more, const int32_t* totals) {
  I sum[kRows][2];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) sum[r][v] = more ? raw<I>(sums + r * kSide + v * LANES) : integers(int32_t(-uint32_t(kFlip) * totals[r]));
  for (long k = 0; k < steps; k++, rows += kBlock, panel += kBlock)
    for (long i = 0; i < kStep; i += 4) {
      const I low = raw<I>(panel + i * kSide), high = raw<I>(panel + i * kSide + 4 * LANES);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
        int32_t four;
        __builtin_memcpy(&four, rows + r * kStep + i, 4);
        sum[r][0] = add_products(sum[r][0], low, integers(four));
        sum[r][1] = add_products(sum[r][1], high, integers(four));
      }
    }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++)
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) __builtin_memcpy(sums + r * kSide + v * LANES, &sum[r][v], sizeof(I));
}

// sums [32][32] = or += `steps` blocks of 32 rows times as many of a panel; with `half` only the first 16 rows.
static void multiply(const int8_t* rows, const int8_t* panel, long steps, int32_t* sums, bool more, bool half,
                     const int32_t* totals) {
  for (long r = 0; r < (half ? 16 : 32); r += kRows)
    for (long c = 0; c < kSide; c += kWide)
      multiply_rows(rows + r * kStep, panel + 4 * c, steps, sums + r * kSide + c, more, totals + r);
}

}  // namespace int8
}  // namespace ISA
