// One product of int8 blocks in plain C++.

namespace ISA {

namespace int8 {

constexpr int kFlip = 0;

// sums [32][32] = or += `steps` blocks of 32 rows times as many of a panel; with `half` only the first 16 rows.
static void multiply(const int8_t* rows, const int8_t* panel, long steps, int32_t* sums, bool more, bool half, const int32_t*) {
  for (long r = 0; r < (half ? 16 : 32); r++)
    for (long c = 0; c < kSide; c++) {
      int32_t total = more ? sums[r * kSide + c] : 0;
      for (long k = 0; k < steps * kStep; k++)
        total += rows[k / kStep * kBlock + r * kStep + k % kStep] * panel[(k / 4 * kSide + c) * 4 + k % 4];
      sums[r * kSide + c] = total;
    }
}

}  // namespace int8
}  // namespace ISA
