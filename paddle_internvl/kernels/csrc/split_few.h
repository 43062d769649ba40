// Products of few rows (decoding) by AMX tiles of bfloat16: of bfloat16 weights in float32, by the three parts of rows of x
// (split_rows.h), and of integers too where rows are rounded to bfloat16.
//
// All tiles of x are multiplied by the same tile of W, 32 rows x 16 columns, and added to the same sums, which stay in tiles for
// a block of W.
//
// In: rows of x as tiles, a weight. Out: sums of some columns (few_split).

namespace ISA {

constexpr long kStripColumns = 64;  // columns of W whose sums are in tiles
constexpr long kDeepBlock = 64;     // rows of W of a block, at most
constexpr long kWideBlock = 1024;   // bytes of each of them: long pieces of a row keep the memory's own pages open

// Lines of memory that are fetched one after the other, row after row.
struct Lines {
  const char* at = nullptr;
  long pitch = 0, bytes = 0, rows = 0, byte = 0;

  void fetch(long n) {
    if (!rows) return;
    for (long i = 0; i < n; i++) prefetch(at + byte + 64 * i);
    if ((byte += 64 * n) >= bytes) byte = 0, at += pitch, rows--;
  }
};

// `rows` rows of n of 64 columns as four tiles beside each other, [16 pairs of rows][64 columns][2]: in bfloat16 of columns 8 lane +
// 0..3 and + 4..7 of the first 32, then of the others. What is not there is zero, or, of the second of two rows in a byte, anything.
template <Kind kind, bool all>
INLINE void take_strip(const char* at, long pitch, long rows, long n, Lines& soon, Half* to) {
#pragma GCC unroll 16
  for (long i = 0; i < kSide; i += 2, to += 2 * kStripColumns) {
    const char* from = at + i / rows_in_a_byte(kind) * pitch;
#pragma GCC unroll 2
    for (long c = 0; c < kStripColumns; c += kSide) {
      Half* here = to + 2 * c;
      if constexpr (kind == Kind::kBFloat16) {
        soon.fetch(2);
        __m512i row[2];
#pragma GCC unroll 2
        for (long r = 0; r < 2; r++) {
          const char* p = from + r * pitch + 2 * c;
          row[r] = all ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(i + r < rows ? first_halves(n - c) : 0, p);
        }
        _mm512_store_si512(here, _mm512_unpacklo_epi16(row[0], row[1]));
        _mm512_store_si512(here + kSide, _mm512_unpackhi_epi16(row[0], row[1]));
      } else {
        if (kind == Kind::kInt8 || c == 0) soon.fetch(1);
        pack_integers<kind, all>(from + c, pitch, all || i < rows ? n - c : 0, i + 1 < rows, here);
      }
    }
  }
}

// Tiles 0 to 3 += tiles of x times a strip of W.
template <long tiles>
INLINE void multiply_strip(const Half* x, const Half* strip) {
  check(x, tiles * kEach * sizeof(Half));
  _tile_loadd(4, x, 64);
  if constexpr (tiles > 1) _tile_loadd(5, x + kEach, 64);
  if constexpr (tiles > 2) _tile_loadd(6, x + 2 * kEach, 64);
  _tile_loadd(7, strip, 4 * kStripColumns);
  _tile_dpbf16ps(0, 4, 7);
  if constexpr (tiles > 1) _tile_dpbf16ps(0, 5, 7);
  if constexpr (tiles > 2) _tile_dpbf16ps(0, 6, 7);
  _tile_loadd(7, strip + kSide, 4 * kStripColumns);
  _tile_dpbf16ps(1, 4, 7);
  if constexpr (tiles > 1) _tile_dpbf16ps(1, 5, 7);
  if constexpr (tiles > 2) _tile_dpbf16ps(1, 6, 7);
  _tile_loadd(7, strip + 2 * kSide, 4 * kStripColumns);
  _tile_dpbf16ps(2, 4, 7);
  if constexpr (tiles > 1) _tile_dpbf16ps(2, 5, 7);
  if constexpr (tiles > 2) _tile_dpbf16ps(2, 6, 7);
  _tile_loadd(7, strip + 3 * kSide, 4 * kStripColumns);
  _tile_dpbf16ps(3, 4, 7);
  if constexpr (tiles > 1) _tile_dpbf16ps(3, 5, 7);
  if constexpr (tiles > 2) _tile_dpbf16ps(3, 6, 7);
}

// What tiles left of a strip of n columns, and where it belongs.
struct StripSums {
  const float* from = nullptr;  // [16][64]
  const float* scales = nullptr;
  float* to = nullptr;
  long n = 0;

  template <Kind kind, long slots>
  void add(long rows, long apart) const {
    if (!from) return;
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    __m512 scale[4];
#pragma GCC unroll 4
    for (long j = 0; j < 4; j++)
      scale[j] = kind == Kind::kBFloat16 ? _mm512_set1_ps(1) : _mm512_maskz_loadu_ps(first_lanes(n - 16 * j), scales + 16 * j);
    for (long r = 0; r < rows; r++) {
      __m512 sum[4];
#pragma GCC unroll 4
      for (long j = 0; j < 4; j++) {
        sum[j] = _mm512_load_ps(from + r * kStripColumns + 16 * j);
#pragma GCC unroll 2
        for (long i = 1; i < slots; i++) sum[j] = sum[j] + _mm512_load_ps(from + (i * rows + r) * kStripColumns + 16 * j);
      }
#pragma GCC unroll 2
      for (long j = 0; j < 4 && kind == Kind::kBFloat16; j += 2) {
        const __m512 first = _mm512_permutex2var_ps(sum[j], low, sum[j + 1]);
        sum[j + 1] = _mm512_permutex2var_ps(sum[j], high, sum[j + 1]);
        sum[j] = first;
      }
#pragma GCC unroll 4
      for (long j = 0; j < 4; j++) {
        float* here = to + r * apart + 16 * j;
        _mm512_storeu_ps(here, _mm512_fmadd_ps(sum[j], scale[j], _mm512_loadu_ps(here)));
      }
    }
  }
};

template <Kind kind, long tiles, long slots>
static void stream_split(const Weight& w, const Parts& x, long column, long columns, float* sums, long apart) {
  constexpr long shared = rows_in_a_byte(kind), wide = kWideBlock / row_bytes(kind, 1);
  const long pitch = row_bytes(kind, w.N);
  const auto row = [&](long k, long c) { return (const char*)w.data + k / shared * pitch + row_bytes(kind, column + c); };
  alignas(64) Half strip[2][kSide * kStripColumns];
  alignas(64) float part[2][kTall * kStripColumns];
  struct {
    const Half* x = nullptr;
    bool first, last;  // of the steps along a strip
    StripSums sums;
  } before;  // the step whose strip was taken before: what has just been stored is loaded into tiles with delay
  StripSums left;
  long taken = 0, done = 0;
  const auto multiply_before = [&] {
    if (!before.x) return;
    __asm__ volatile("" ::: "memory");  // GCC does not know that tiles are loaded from memory
    if (before.first) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    }
    multiply_strip<tiles>(before.x, strip[taken++ % 2]);
    if (!before.last) return;
    float* to = part[done++ % 2];
    _tile_stored(0, to, 4 * kStripColumns);
    _tile_stored(1, to + 16, 4 * kStripColumns);
    _tile_stored(2, to + 32, 4 * kStripColumns);
    _tile_stored(3, to + 48, 4 * kStripColumns);
    __asm__ volatile("" ::: "memory");
    left.add<kind, slots>(x.rows, apart);
    left = before.sums;
    left.from = to;
  };
  long step = 0;
  for (long first = 0; first < columns; first += wide) {
    const long last = first + wide < columns ? first + wide : columns;
    const Half* at = (const Half*)x.at;
    for (long k = 0, end; k < w.K; k = end) {
      end = end_of(w, k, kDeepBlock);
      const long steps = blocks_in(end - k);
      const long below = end < w.K ? end : 0, beside = end < w.K ? first : last;  // where the next block begins
      const long width = beside + wide < columns ? wide : columns - beside;
      Lines soon;
      if (width) soon = {row(below, beside), pitch, row_bytes(kind, width), (end_of(w, below, kDeepBlock) - below + shared - 1) / shared};
      for (long c = first; c < last; c += kStripColumns)
        for (long s = 0; s < steps; s++, step++) {
          const long rows = end - k - s * kSide;
          const bool all = rows >= kSide && last - c >= kStripColumns;
          (all ? take_strip<kind, true> : take_strip<kind, false>)(row(k + s * kSide, c), pitch, rows, last - c, soon, strip[step % 2]);
          multiply_before();
          const float* scales = w.scales ? w.scales + k / w.group * w.N + column + c : nullptr;
          before = {at + s * tiles * kEach, s == 0, s + 1 == steps, {nullptr, scales, sums + c, last - c}};
        }
      at += steps * tiles * kEach;
    }
  }
  multiply_before();
  left.add<kind, slots>(x.rows, apart);
}

// sums, `apart` apart (a multiple of 64), = x times some columns of W, without offsets; they are zero before.
static void few_split(const Weight& w, const Parts& x, long column, long columns, float* sums, long apart) {
  typedef void (*Stream)(const Weight&, const Parts&, long, long, float*, long);
  static const Stream of_parts[] = {stream_split<Kind::kBFloat16, 1, 3>, stream_split<Kind::kBFloat16, 2, 2>,
                                    stream_split<Kind::kBFloat16, 3, 1>};
  static const Stream rounded[] = {stream_split<Kind::kBFloat16, 1, 1>, stream_split<Kind::kInt8, 1, 1>,
                                   stream_split<Kind::kInt4, 1, 1>};
  const bool single = x.tiles == 1 && x.slots == 1;
  (single ? rounded[long(w.kind) - long(Kind::kBFloat16)] : of_parts[x.tiles - 1])(w, x, column, columns, sums, apart);
}

}  // namespace ISA
