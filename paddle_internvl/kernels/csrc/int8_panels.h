// Weights as panels of int8: 32 columns in which four rows of W lie beside each other, [K / 4][32 columns][4].
//
// Columns with several scales, or with offsets, are brought to 8 bits with one scale S: of no offsets the largest of the
// column's scales, of int4 a 16th of it; else the largest |q s + o| / 127. A number becomes
// ((q << a) * round(s / S << b) + 2^14 >> 15) + round(o / S) with b = 10 for int4, 14 for int8, and a = 15 - b.

namespace ISA {
namespace int8 {

// What brings some columns to 8 bits.
struct Columns {
  float* scales;                     // [apart]: S
  int16_t *times, *plus;             // [groups][apart]; null: the integers are as they are, nothing is added
  long apart;                        // columns, a multiple of 2 kSide
};

constexpr int binary_places(Kind kind) { return kind == Kind::kInt4 ? 10 : 14; }

// Of columns [column, column + columns); made in `memory`, floats_of(w, columns) of it.
static long floats_of(const Weight& w, long columns) { return blocks_in(columns, 2 * kSide) * 2 * kSide * (1 + groups_of(w)); }

static Columns columns_of(const Weight& w, long column, long columns, float* memory) {
  const long groups = groups_of(w), apart = blocks_in(columns, 2 * kSide) * 2 * kSide;
  const bool nibbles = w.kind == Kind::kInt4;
  const float lowest = nibbles ? -8 : -128, highest = nibbles ? 7 : 127;
  Columns to = {memory, nullptr, nullptr, apart};
  for (long c = 0; c < apart; c++) to.scales[c] = c < columns ? w.scales[column + c] : 0;
  if (groups == 1 && !w.offsets) return to;
  to.times = (int16_t*)(memory + apart);
  if (w.offsets) to.plus = to.times + groups * apart;
  for (long c = 0; c < apart; c++) {
    float top = 1e-30f;
    for (long g = 0; c < columns && g < groups; g++) {
      const float s = w.scales[g * w.N + column + c], o = w.offsets ? w.offsets[g * w.N + column + c] : 0;
      const float low = std::fabs(s * lowest + o), high = std::fabs(s * highest + o);
      const float here = !w.offsets ? std::fabs(s) : low > high ? low : high;
      if (here > top) top = here;
    }
    const float scale = to.scales[c] = !w.offsets ? (nibbles ? top / 16 : top) : top / 127;
    for (long g = 0; g < groups; g++) {
      const bool inside = c < columns;
      const float one = 1 << binary_places(w.kind), s = inside ? w.scales[g * w.N + column + c] : 0;
      to.times[g * apart + c] = (int16_t)std::nearbyint(s / scale * one);
      if (to.plus) to.plus[g * apart + c] = (int16_t)std::nearbyint((inside ? w.offsets[g * w.N + column + c] : 0) / scale);
    }
  }
  return to;
}

#if LANES == 16 && defined(__x86_64__)
typedef __m512i Row;  // of 64 columns

// n of 64 numbers of row k, whose group's columns begin at `at`; the others are zero.
template <Kind kind>
INLINE Row take(const Weight& w, const Columns& to8, long k, long column, long n, long at) {
  const __mmask64 mask = n >= 64 ? ~0ull : (1ull << n) - 1;
  Row q = _mm512_maskz_loadu_epi8(mask, (const char*)w.data + k / rows_in_a_byte(kind) * w.N + column);
  if (kind == Kind::kInt4) {
    if (k % 2) q = _mm512_srli_epi16(q, 4);
    const Row eight = _mm512_set1_epi8(8);
    q = _mm512_sub_epi8(_mm512_xor_si512(_mm512_and_si512(q, _mm512_set1_epi8(15)), eight), eight);
  }
  if (!to8.times) return q;
  __m256i half[2] = {_mm512_castsi512_si256(q), _mm512_extracti64x4_epi64(q, 1)};
#pragma GCC unroll 2
  for (int h = 0; h < 2; h++) {
    const __m512i wide = _mm512_slli_epi16(_mm512_cvtepi8_epi16(half[h]), 15 - binary_places(kind));
    __m512i y = _mm512_mulhrs_epi16(wide, _mm512_loadu_si512(to8.times + at + 32 * h));
    if (to8.plus) y = _mm512_add_epi16(y, _mm512_loadu_si512(to8.plus + at + 32 * h));
    half[h] = _mm512_cvtsepi16_epi8(y);
  }
  return _mm512_inserti64x4(_mm512_castsi256_si512(half[0]), half[1], 1);
}

// Four rows of 64 columns beside each other, 32 columns to `to`, the others to `next`.
INLINE void interleave(Row row[4], int8_t* to, int8_t* next) {
  const __m512i turned = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    if (kFlip) row[i] = _mm512_xor_si512(row[i], _mm512_set1_epi8(-128));
    row[i] = _mm512_permutexvar_epi32(turned, row[i]);
  }
  const __m512i low1 = _mm512_unpacklo_epi8(row[0], row[1]), high1 = _mm512_unpackhi_epi8(row[0], row[1]);
  const __m512i low2 = _mm512_unpacklo_epi8(row[2], row[3]), high2 = _mm512_unpackhi_epi8(row[2], row[3]);
  _mm512_storeu_si512(to, _mm512_unpacklo_epi16(low1, low2));
  _mm512_storeu_si512(to + 64, _mm512_unpackhi_epi16(low1, low2));
  _mm512_storeu_si512(next, _mm512_unpacklo_epi16(high1, high2));
  _mm512_storeu_si512(next + 64, _mm512_unpackhi_epi16(high1, high2));
}

#else
struct Row {
  int8_t at[2 * kSide];
};

template <Kind kind>
static Row take(const Weight& w, const Columns& to8, long k, long column, long n, long at) {
  Row row = {};
  const int8_t* from = (const int8_t*)w.data + k / rows_in_a_byte(kind) * w.N + column;
  for (long c = 0; c < n && c < 2 * kSide; c++) {
    int q = kind != Kind::kInt4 ? from[c] : k % 2 ? from[c] >> 4 : (int8_t)((uint8_t)from[c] << 4) >> 4;
    if (to8.times) {
      q = (q * (1 << (15 - binary_places(kind))) * to8.times[at + c] + 16384) >> 15;
      if (to8.plus) q += to8.plus[at + c];
      q = q < -128 ? -128 : q > 127 ? 127 : q;
    }
    row.at[c] = q;
  }
  return row;
}

static void interleave(Row row[4], int8_t* to, int8_t* next) {
  for (long c = 0; c < kSide; c++)
    for (int i = 0; i < 4; i++) {
      to[4 * c + i] = row[i].at[c] ^ -kFlip;  // weights plus 128, or as they are
      next[4 * c + i] = row[i].at[kSide + c] ^ -kFlip;
    }
}
#endif

// Rows [k, k + 64 blocks) of `columns` columns as panels, `apart` from one to the next, two at a time; rows and columns
// that are not there are zero. Rows 64 further on are fetched.
template <Kind kind>
static void pack(const Weight& w, const Columns& to8, long column, long columns, long k, long blocks, int8_t* to, long apart) {
  const long end = k + blocks * kStep, pitch = w.N, shared = rows_in_a_byte(kind);
  for (; k < end; k += 4, to += 4 * kSide) {
    const char* soon = (const char*)w.data + (k + kStep) / shared * pitch + column;
    for (long c = 0; c < columns; c += 2 * kSide) {
      Row row[4] = {};
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) {
        if (i % shared == 0) prefetch(soon + i / shared * pitch + c);
        if (k + i < w.K) row[i] = take<kind>(w, to8, k + i, column + c, columns - c, to8.times ? (k + i) / w.group * to8.apart + c : 0);
      }
      interleave(row, to + c / kSide * apart, to + (c / kSide + 1) * apart);
    }
  }
}

}  // namespace int8
}  // namespace ISA
