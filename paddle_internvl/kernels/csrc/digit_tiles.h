// Products of few rows (decoding) with int8 and int4 weights by AMX tiles of int8, in which numbers of x are
// digits (digits.h).
//
// A tile has 64 rows of W: four of them beside each other, in 16 columns. An int4 stands in the high half of its byte, as 16
// times itself.
//
// In: rows of x, a weight in int8 or int4. Out: sums of some columns (few_digit_tiles).

namespace ISA {

constexpr long kDigitTileRows = 8;        // of x, at most, where they may be rounded instead
constexpr long kDeepTile = 64;            // rows of W of a tile, at most: what lies behind a group's end is zero
constexpr long kLine = 64;                // bytes of a tile's row
constexpr long kTileBytes = kTall * kLine;
constexpr long kTilesSoon = 32768;        // bytes that are fetched ahead

// Rows as tiles [blocks of rows of W][tiles][16 rows][64], in which row 3 r + d is digit d of row r, with scales [blocks][rows].
static Parts digit_parts(const Weight& w, const float* x, long x_stride, long rows) {
  const long tiles = (kDigits * rows + kTall - 1) / kTall, size = tiles * kTileBytes;
  const bool nibbles = w.kind == Kind::kInt4;
  const long blocks = steps_of(w, kDeepTile);
  int8_t* at = (int8_t*)scratch(kLinearDigits, blocks * (size / 4 + rows));
  float* scales = (float*)(at + blocks * size);
  for (long k = 0, b = 0, end; k < w.K; k = end, b++) {
    end = end_of(w, k, kDeepTile);
    for (long r = 0; r < rows; r++) {
      const float scale = take_digits(x + r * x_stride + k, end - k, nibbles, at + b * size + r * kDigits * kLine);
      scales[b * rows + r] = nibbles ? scale / 16 : scale;
    }
  }
  return {at, rows, tiles, kDigits, scales};
}

// `rows` rows of n of 64 columns as four tiles [16 fours of rows][16 columns][4 rows], of columns 16 lane + 4 j + 0..3 of tile
// j; what is not there is zero, or, of the second of two rows in a byte, anything. Rows from `soon` on are fetched.
template <Kind kind, bool all>
INLINE void take_tiles(const char* at, long pitch, long rows, long n, const char* soon, int8_t* to) {
  constexpr long shared = rows_in_a_byte(kind);
  const __mmask64 here = all || n >= 64 ? ~0ull : (1ull << n) - 1;
  const __m512i high = _mm512_set1_epi8(char(0xf0));
#pragma GCC unroll 16
  for (long i = 0; i < kDeepTile / shared; i += 4) {
    __m512i row[4], four[4];
#pragma GCC unroll 4
    for (long r = 0; r < 4; r++) {
      const char* from = at + (i + r) * pitch;
      row[r] = all ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi8((i + r) * shared < rows ? here : 0, from);
      prefetch(soon + (i + r) * pitch);
    }
    interleave(row, four);
#pragma GCC unroll 4
    for (long j = 0; j < 4; j++) {
      int8_t* line = to + j * kTileBytes + i * shared / 4 * kLine;
      if constexpr (kind == Kind::kInt4) {
        _mm512_store_si512(line, _mm512_and_si512(_mm512_slli_epi16(four[j], 4), high));
        _mm512_store_si512(line + kLine, _mm512_and_si512(four[j], high));
      } else {
        _mm512_store_si512(line, four[j]);
      }
    }
  }
}

// sums [16 T][16], rows four lines apart, = the tiles of x, 0 to T - 1, times a tile of W.
template <int T>
INLINE void multiply_digits(const int8_t* w, int32_t* sums) {
  _tile_loadd(3, w, kLine);
  _tile_zero(4);
  _tile_dpbssd(4, 0, 3);
  _tile_stored(4, sums, 4 * kLine);
  if constexpr (T > 1) {
    _tile_zero(5);
    _tile_dpbssd(5, 1, 3);
    _tile_stored(5, sums + kTall * kLine, 4 * kLine);
  }
  if constexpr (T > 2) {
    _tile_zero(6);
    _tile_dpbssd(6, 2, 3);
    _tile_stored(6, sums + 2 * kTall * kLine, 4 * kLine);
  }
}

// What tiles left of n columns, and where it belongs: sums whose columns are in the tiles' order.
struct Left {
  const int32_t* part = nullptr;
  const float *of_rows, *of_columns;  // scales
  float* sums;
  long n;

  void add(long rows, long apart) const {
    if (!part) return;
    __m512 scale[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) scale[j] = _mm512_maskz_loadu_ps(first_lanes(n - 16 * j), of_columns + 16 * j);
    turn_lanes(scale);
    for (long r = 0; r < rows; r++) {
      const int32_t* from = part + r * kDigits * kLine;
      const __m512 of_row = _mm512_set1_ps(of_rows[r]);
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++, from += 16) {
        const __m512i high = _mm512_load_si512(from), middle = _mm512_load_si512(from + kLine), low = _mm512_load_si512(from + 2 * kLine);
        const __m512 sum = _mm512_mul_ps(digits_sum(high, middle, low), of_row);
        float* to = sums + r * apart + 16 * j;
        _mm512_storeu_ps(to, _mm512_fmadd_ps(sum, scale[j], _mm512_loadu_ps(to)));
      }
    }
  }
};

template <Kind kind, int T>
static void stream_tiles(const Weight& w, const Parts& x, long column, long columns, float* sums, long apart) {
  constexpr long shared = rows_in_a_byte(kind), ahead = kTilesSoon * shared / kDeepTile / kLine * kLine;
  const long pitch = w.N, next = kDeepTile / shared * pitch, later = ahead / columns * next, further = ahead % columns;
  alignas(64) int8_t panel[2][4 * kTileBytes];
  alignas(64) int32_t part[2][T * kTall * kLine];
  const int8_t *loaded = nullptr, *wanted = nullptr;  // digits
  Left before, left;  // of the panel taken before, and of the one before that: what has just been stored is loaded with delay
  long i = 0;
  const auto multiply_before = [&] {
    if (!wanted) return;
    if (wanted != loaded) {
      loaded = wanted;
      check(loaded, T * kTileBytes);
      _tile_loadd(0, loaded, kLine);
      if constexpr (T > 1) _tile_loadd(1, loaded + kTileBytes, kLine);
      if constexpr (T > 2) _tile_loadd(2, loaded + 2 * kTileBytes, kLine);
    }
    const int8_t* from = panel[(i + 1) % 2];
    int32_t* to = part[i % 2];
    __asm__ volatile("" ::: "memory");  // GCC does not know that tiles are loaded from memory
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) multiply_digits<T>(from + j * kTileBytes, to + 16 * j);
    __asm__ volatile("" ::: "memory");
    left.add(x.rows, apart);
    left = before;
    left.part = to;
  };
  for (long k = 0, b = 0, end; k < w.K; k = end, b++) {
    end = end_of(w, k, kDeepTile);
    const char* at = (const char*)w.data + k / shared * pitch + column;
    const float* scales = w.scales + k / w.group * w.N + column;
    for (long c = 0; c < columns; c += kLine, i++) {
      const char* soon = at + later + (c + further < columns ? c + further : next + c + further - columns);
      const bool all = end - k == kDeepTile && columns - c >= kLine;
      (all ? take_tiles<kind, true> : take_tiles<kind, false>)(at + c, pitch, end - k, columns - c, soon, panel[i % 2]);
      multiply_before();
      wanted = (const int8_t*)x.at + b * T * kTileBytes;
      before = {nullptr, x.scales + b * x.rows, scales + c, sums + c, columns - c};
    }
  }
  multiply_before();
  left.add(x.rows, apart);
  for (long r = 0; r < x.rows; r++)
    for (float* to = sums + r * apart; to < sums + r * apart + columns; to += kLine) {
      __m512 v[4] = {_mm512_loadu_ps(to), _mm512_loadu_ps(to + 16), _mm512_loadu_ps(to + 32), _mm512_loadu_ps(to + 48)};
      turn_lanes(v);
      for (int j = 0; j < 4; j++) _mm512_storeu_ps(to + 16 * j, v[j]);
    }
}

// sums, `apart` apart (a multiple of 64), = x times some columns of W, without offsets; they are zero before.
static void few_digit_tiles(const Weight& w, const Parts& x, long column, long columns, float* sums, long apart) {
  typedef void (*Stream)(const Weight&, const Parts&, long, long, float*, long);
  static const Stream table[][3] = {
      {stream_tiles<Kind::kInt8, 1>, stream_tiles<Kind::kInt8, 2>, stream_tiles<Kind::kInt8, 3>},
      {stream_tiles<Kind::kInt4, 1>, stream_tiles<Kind::kInt4, 2>, stream_tiles<Kind::kInt4, 3>},
  };
  table[w.kind == Kind::kInt4][x.tiles - 1](w, x, column, columns, sums, apart);
}

// Whether tiles multiply few rows by such a weight.
static bool fits_few(const Weight& w, long rows) {
  if (rows > kFewRows) return false;
  if (w.kind == Kind::kInt4) return rows >= kTileRows && (w.group % 2 == 0 || w.group >= w.K);
  return (w.kind == Kind::kBFloat16 || w.kind == Kind::kInt8) && rows >= kMoreRows;
}

// Few rows as tiles for products with a weight; nothing where floats or digits are faster.
static Parts parts_of(const Weight& w, const float* x, long x_stride, long rows, bool rounded) {
  if (!fits_few(w, rows)) return {};
  if (w.kind != Kind::kBFloat16 && !(rounded && rows > kDigitTileRows)) return digit_parts(w, x, x_stride, rows);
  return (rounded ? split_parts<1> : split_parts<kParts>)(w, x, x_stride, rows);
}

// sums, `apart` apart, = x times some columns of W, without offsets; they are zero before.
static void few_parts(const Weight& w, const Parts& x, long column, long columns, float* sums, long apart) {
  (x.scales ? few_digit_tiles : few_split)(w, x, column, columns, sums, apart);
}

}  // namespace ISA
