// Products of few rows with integer weights by VNNI, four byte products an instruction: float arithmetic on int4 takes
// longer than reading it does. Numbers of x are digits there (digits.h).
//
// In: rows of x, an int8 or int4 weight. Out: sums of some columns (few_digits).

#include "digits.h"

namespace ISA {

constexpr long kWide = 64;      // columns that are worked on together
constexpr long kFar = 32768;    // bytes that are fetched ahead
constexpr long kDigitRows = 4;  // of x, at most; more of them take less time as floats

#if LANES == 16 && defined(__x86_64__)
#define VNNI __attribute__((target("avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))

struct Digits {
  int8_t digits[kDigits][kDeep];  // the highest ones first; in the order in which rows of W meet in a vector
  int32_t start[kDigits];         // of each digit's sums: weights are multiplied as numbers from 0 on
  float scale;
};

static bool has_vnni() {
  static const bool has = __builtin_cpu_supports("avx512vnni");
  return has;
}

// The digits of x [rows, K], [rows][K / kDeep]; null where they can't be used.
VNNI static const Digits* digits_of(const Weight& w, const float* x, long x_stride, long rows) {
  const bool nibbles = w.kind == Kind::kInt4;
  if ((!nibbles && w.kind != Kind::kInt8) || rows > kDigitRows || !has_vnni()) return nullptr;
  if (w.K % kDeep || w.group % kDeep) return nullptr;
  const long blocks = w.K / kDeep;
  const int zero_at = nibbles ? 8 : 128;
  Digits* to = (Digits*)scratch(kLinearDigits, (rows * blocks + 1) * sizeof(Digits) / sizeof(float));
  const Digits* made = to;
  for (long r = 0; r < rows; r++)
    for (long k = 0; k < w.K; k += kShared) {
      const long n = w.K - k < kShared ? w.K - k : kShared;
      int8_t taken[kDigits * kShared];
      const float scale = take_digits(x + r * x_stride + k, n, nibbles, taken);
      for (long i = 0; i < n; i += kDeep, to++) {
        to->scale = scale;
        for (int d = 0; d < kDigits; d++) {
          const __m128i sixteen = _mm_loadu_si128((const __m128i*)(taken + d * kShared + i));
          _mm_storeu_si128((__m128i*)to->digits[d], sixteen);
          to->start[d] = -zero_at * _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(sixteen));
        }
      }
    }
  return made;
}

// Four rows [64] of bytes in memory, interleaved. soon: rows to fetch.
VNNI INLINE void take_four(const char* at, const char* soon, long pitch, __m512i out[4]) {
  __m512i row[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    row[i] = _mm512_loadu_si512(at + i * pitch);
    prefetch(soon + i * pitch);
    __builtin_prefetch(at + kWide + i * pitch, 0, 3);  // from the second-level cache into the first
  }
  interleave(row, out);
}

// Four quads of rows [4 rows][16 columns] of bytes from 0 on, of 16 rows of 64 columns.
template <Kind kind>
VNNI INLINE void take_quads(const char* at, const char* soon, long pitch, __m512i w[4][4]) {
  if constexpr (kind == Kind::kInt4) {
    const __m512i mask = _mm512_set1_epi8(15), flip = _mm512_set1_epi8(8);
#pragma GCC unroll 2
    for (int i = 0; i < 4; i += 2) {
      take_four(at + 2 * i * pitch, soon + 2 * i * pitch, pitch, w[i]);
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) {
        w[i + 1][j] = _mm512_ternarylogic_epi32(_mm512_srli_epi16(w[i][j], 4), mask, flip, 0x6A);  // (w & mask) ^ flip
        w[i][j] = _mm512_ternarylogic_epi32(w[i][j], mask, flip, 0x6A);
      }
    }
  } else {
    const __m512i flip = _mm512_set1_epi8(-128);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      take_four(at + 4 * i * pitch, soon + 4 * i * pitch, pitch, w[i]);
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) w[i][j] = _mm512_xor_si512(w[i][j], flip);
    }
  }
}

// sums[R], `apart` apart, += x[R] times 16 `steps` rows of 64 columns, which share scales; x[r] is `blocks` after x[r - 1].
template <Kind kind, int R, int steps>
VNNI INLINE void add_digits(const char* at, const char* soon, long pitch, const Digits* x, long blocks,
                            const float* scales, long next, float* sums, long apart) {
  static_assert(R == 1 || steps == 1, "the sums of several rows don't fit the registers");
  __m512i part[R][4][3];
#pragma GCC unroll 4
  for (int r = 0; r < R; r++)
#pragma GCC unroll 3
    for (int d = 0; d < 3; d++) {
      int32_t start = 0;
      for (int step = 0; step < steps; step++) start += x[r * blocks + step].start[d];
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) part[r][j][d] = _mm512_set1_epi32(start);
    }
#pragma GCC unroll 4
  for (int step = 0; step < steps; step++) {
    __m512i w[4][4];
    const long row = step * kDeep / rows_in_a_byte(kind);
    take_quads<kind>(at + row * pitch, soon + row * pitch, pitch, w);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++)
#pragma GCC unroll 3
        for (int d = 0; d < 3; d++) {
          int32_t four;
          __builtin_memcpy(&four, x[r * blocks + step].digits[d] + 4 * i, 4);
#pragma GCC unroll 4
          for (int j = 0; j < 4; j++) part[r][j][d] = _mm512_dpbusd_epi32(part[r][j][d], w[i][j], _mm512_set1_epi32(four));
        }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
    __m512 sum[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) sum[j] = digits_sum(part[r][j][0], part[r][j][1], part[r][j][2]);
    turn_lanes(sum);
    const __m512 scale = _mm512_set1_ps(x[r * blocks].scale);
    float* to = sums + r * apart;
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      const __m512 scaled = _mm512_mul_ps(sum[j], scale);
      _mm512_storeu_ps(to + 16 * j, _mm512_fmadd_ps(scaled, _mm512_loadu_ps(scales + 16 * j), _mm512_loadu_ps(to + 16 * j)));
      if (r == 0) prefetch(scales + next + 16 * j);
    }
  }
}

// sums[R] += x[R] times some columns of W, a multiple of kWide.
template <Kind kind, int R>
VNNI static void stream_digits(const Weight& w, const Digits* x, long column, long columns, float* sums, long apart) {
  constexpr int steps = R == 1 ? (kind == Kind::kInt4 ? 4 : 1) : 1;
  constexpr long shared = rows_in_a_byte(kind);
  const long pitch = w.N, blocks = w.K / kDeep;
  for (long k = 0; k < w.K;) {
    const long group = k / w.group, end = (group + 1) * w.group < w.K ? (group + 1) * w.group : w.K;
    const bool together = end - k >= steps * kDeep && k % kShared + steps * kDeep <= kShared;
    const long rows = (together ? steps : 1) * kDeep / shared, far = kFar / rows / kWide * kWide;
    const long next = rows * pitch, later = far / columns * next, further = far % columns;
    const char* at = (const char*)w.data + k / shared * pitch + column;
    const float* scales = w.scales + group * w.N + column;
    for (long c = 0; c < columns; c += kWide) {
      const char* soon = at + later + c + further + (c + further < columns ? 0 : next - columns);
      if (together) add_digits<kind, R, steps>(at + c, soon, pitch, x + k / kDeep, blocks, scales + c, w.N, sums + c, apart);
      else add_digits<kind, R, 1>(at + c, soon, pitch, x + k / kDeep, blocks, scales + c, w.N, sums + c, apart);
    }
    k += rows * shared;
  }
}

typedef void (*StreamDigits)(const Weight&, const Digits*, long, long, float*, long);

template <Kind kind>
static StreamDigits stream_digits_of(long rows) {
  static const StreamDigits table[] = {stream_digits<kind, 1>, stream_digits<kind, 2>, stream_digits<kind, 3>,
                                       stream_digits<kind, 4>};
  static_assert(sizeof table / sizeof *table == kDigitRows, "one for each number of rows");
  return table[rows - 1];
}

// out[rows], `apart` apart, += x times some columns of W, a multiple of kWide, without offsets.
static void few_digits(const Weight& w, const Digits* x, long rows, long column, long columns, float* out, long apart) {
  (w.kind == Kind::kInt4 ? stream_digits_of<Kind::kInt4>(rows) : stream_digits_of<Kind::kInt8>(rows))(
      w, x, column, columns, out, apart);
}

#else
struct Digits;
static const Digits* digits_of(const Weight&, const float*, long, long) { return nullptr; }
static void few_digits(const Weight&, const Digits*, long, long, long, float*, long) {}
#endif

}  // namespace ISA
