// Rows of activations as int8: in blocks of 32 rows x 64 columns, each row with its scale.
//
// In: floats. Out: Rows.

namespace ISA {
namespace int8 {

constexpr long kSide = 32;              // rows of a block, columns of a panel
constexpr long kStep = 64;              // columns of a block; rows of a weight that meet them
constexpr long kBlock = kSide * kStep;  // bytes

static long blocks_in(long n, long side) { return (n + side - 1) / side; }

// A matrix [rows, 64 depth] as blocks [rows / 32][depth][32][64]. Columns behind the matrix's own are zero; rows behind
// its own are anything.
struct Rows {
  float* scales;    // of each row
  int32_t* totals;  // sums of each row
  int8_t* at;
  long depth;

  int8_t* block(long r, long k) const { return at + (r * depth + k) * kBlock; }
};

// The memory of a thread for `rows` rows.
static Rows rows_of(Slot slot, long rows, long columns) {
  const long blocks = blocks_in(rows, kSide), depth = blocks_in(columns, kStep), all = blocks * kSide;
  float* at = scratch(slot, 2 * all + blocks * depth * kBlock / 4);
  return {at, (int32_t*)at + all, (int8_t*)(at + 2 * all), depth};
}

// To nearest, ties to even.
INLINE I rounded(V v) {
#if LANES == 16 && defined(__x86_64__)
  return (I)_mm512_cvtps_epi32((__m512)v);
#elif LANES == 8 && defined(__x86_64__)
  return (I)_mm256_cvtps_epi32((__m256)v);
#elif LANES == 4 && defined(__x86_64__)
  return (I)_mm_cvtps_epi32((__m128)v);
#else
  const V magic = set(12582912.f);  // 1.5 * 2^23: adding it rounds to a whole number
  return as_bits(v + magic) - as_bits(magic);
#endif
}

// Row r from x [width]. A row with a number that is not finite has the scale NaN.
static void take_row(const float* x, long width, const Rows& to, long r) {
  V top = set(1e-30f), wild = zero();
  for (long k = 0; k < width; k += LANES) {
    const V v = some(x + k, width - k);
    top = max(absolute(v), top);
    wild += v * zero();
  }
  const float most = largest(top);
  const V times = set(127.f / most);
  I total = {};
  int8_t* out = to.block(r / kSide, 0) + r % kSide * kStep;
  for (long k = 0; k < to.depth * kStep; k += kStep, out += kBlock)
    for (long i = 0; i < kStep; i += LANES) {
      const I whole = rounded(some(x + k + i, width - k - i) * times);
      const Bytes bytes = __builtin_convertvector(whole, Bytes);
      __builtin_memcpy(out + i, &bytes, sizeof bytes);
      total += whole;
    }
  to.totals[r] = 0;
  for (int i = 0; i < LANES; i++) to.totals[r] += total[i];
  to.scales[r] = sum(wild) == 0 ? most / 127.f : __builtin_nanf("");
}

}  // namespace int8
}  // namespace ISA
