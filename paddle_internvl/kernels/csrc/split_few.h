// Products of few rows (decoding) with bfloat16 weights by AMX tiles, in float32: see split_rows.h.
//
// A tile multiplies pairs of rows of W, and its memory has pairs of columns: so each number of x is there twice, beside a
// zero, for even and for odd columns. Half of the multiplications are in vain, which costs less than bringing W in order.
//
// In: rows of x, a weight in bfloat16. Out: sums of some columns (few_pairs).

namespace ISA {

constexpr long kFewRows = 16;     // of x, at most
constexpr long kTileRows = 3;     // and at least, with int4
constexpr long kMoreRows = 5;     // with bfloat16 and int8: fewer rows take no longer than reading without tiles
constexpr long kTall = 16;        // rows of W of a tile
constexpr long kEach = kTall * kSide;  // halves of a tile
constexpr long kStep = 32;        // rows of W that are worked on together: of more the hardware fetches none ahead
constexpr long kSoon = 16384;     // bytes that are fetched ahead

// Rows of x as tiles: parts of them, or their digits (digit_tiles.h).
struct Parts {
  void* at = nullptr;
  long rows = 0, groups = 0;      // tiles of rows
  const float* scales = nullptr;  // of digits
};

static bool fits_pairs(const Weight& w, long rows) { return w.kind == Kind::kBFloat16 && rows >= kMoreRows; }

// Rows as tiles [K / 16][3 parts][groups][16 rows][16 pairs]: rows 2 r and 2 r + 1 are for even and for odd columns.
static Parts paired_parts(const float* x, long x_stride, long rows, long K) {
  const long groups = (rows + 7) / 8, steps = 2 * blocks_in(K), apart = kParts * groups * kEach;
  Half* at = (Half*)scratch(kLinearDigits, steps * apart / 2);
  for (long r = 0; r < rows; r++)
    for (long k = 0; k < steps; k += 2) {
      __m512i part[kParts];
      split(x + r * x_stride + k * kTall, K - k * kTall, part);
      for (long half = 0; half < 2; half++)
        for (long i = 0; i < kParts; i++) {
          const __m512i x = _mm512_cvtepu16_epi32(half ? _mm512_extracti64x4_epi64(part[i], 1) : _mm512_castsi512_si256(part[i]));
          Half* to = at + (k + half) * apart + (i * groups * 8 + r) * 2 * kSide;
          _mm512_store_si512(to, x);
          _mm512_store_si512(to + kSide, _mm512_slli_epi32(x, 16));
        }
    }
  return {at, rows, groups};
}

// A column of tiles of W: 16 rows `pitch` apart.
struct Strip {
  const char* at;
  long pitch;
};

// sums [4][16][16] = `steps` steps of a group of rows times 32 columns of each of 4 strips, or of two groups times 2 strips.
template <int groups>
INLINE void multiply_pairs(const Half* x, Strip w, long steps, const char* soon, float* sums) {
  __asm__ volatile("" ::: "memory");  // GCC does not know that tiles are loaded from memory
  check(x, steps * kParts * groups * kEach * 2);
  for (long i = 0; i < steps * kTall; i++) check(w.at + i * w.pitch, 256 / groups);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (long k = 0; k < steps; k++, w.at += kTall * w.pitch, x += kParts * groups * kEach) {
    if (soon) {
#pragma GCC unroll 16
      for (int i = 0; i < kTall; i++, soon += w.pitch)
#pragma GCC unroll 4
        for (int line = 0; line < 4 / groups; line++) prefetch(soon + 64 * line);
    }
    if constexpr (groups == 1) {
      _tile_loadd(4, x, 64);
      _tile_loadd(5, x + kEach, 64);
      _tile_loadd(6, x + 2 * kEach, 64);
      _tile_loadd(7, w.at, w.pitch);
      _tile_dpbf16ps(0, 4, 7);
      _tile_dpbf16ps(0, 5, 7);
      _tile_dpbf16ps(0, 6, 7);
      _tile_loadd(7, w.at + 64, w.pitch);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(1, 5, 7);
      _tile_dpbf16ps(1, 6, 7);
      _tile_loadd(7, w.at + 128, w.pitch);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(2, 5, 7);
      _tile_dpbf16ps(2, 6, 7);
      _tile_loadd(7, w.at + 192, w.pitch);
      _tile_dpbf16ps(3, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
      _tile_dpbf16ps(3, 6, 7);
    } else {
      _tile_loadd(4, w.at, w.pitch);
      _tile_loadd(5, w.at + 64, w.pitch);
      for (long i = 0; i < kParts; i++) {
        _tile_loadd(6, x + 2 * i * kEach, 64);
        _tile_loadd(7, x + (2 * i + 1) * kEach, 64);
        _tile_dpbf16ps(0, 6, 4);
        _tile_dpbf16ps(1, 7, 4);
        _tile_dpbf16ps(2, 6, 5);
        _tile_dpbf16ps(3, 7, 5);
      }
    }
  }
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + 256, 64);
  _tile_stored(2, sums + 512, 64);
  _tile_stored(3, sums + 768, 64);
  __asm__ volatile("" ::: "memory");
}

// sums, `apart` apart, += what tiles leave of n columns: sums of even and of odd ones.
template <int groups>
INLINE void add_pairs(const float* from, long rows, long n, float* sums, long apart) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  for (long c = 0; c < n && c < 4 / groups * kSide; c += kSide, from += groups * 256)
    for (long r = 0; r < rows; r++) {
      const __m512 even = _mm512_load_ps(from + 32 * r), odd = _mm512_load_ps(from + 32 * r + 16);
      float* to = sums + r * apart + c;
      store(to, load(to) + (V)_mm512_permutex2var_ps(even, low, odd));
      if (n - c > 16) store(to + 16, load(to + 16) + (V)_mm512_permutex2var_ps(even, high, odd));
    }
}

template <int groups>
static void stream_pairs(const Weight& w, const Parts& x, long column, long columns, float* sums, long apart) {
  constexpr long wide = 4 / groups * kSide;
  const long pitch = 2 * w.N, next = kStep * pitch, ahead = kSoon / kStep / 2 / wide * wide;
  const long later = ahead / columns * next, further = ahead % columns;
  alignas(64) float part[2][1024];  // of these columns, and of those before, which are added meanwhile
  alignas(64) Half copy[kStep * wide];
  long last = -1;
  for (long k = 0, i = 0; k < w.K; k += kStep) {
    const long rows = w.K - k < kStep ? w.K - k : kStep;
    const char* at = (const char*)w.data + k * pitch + 2 * column;
    const Half* tiles = (const Half*)x.at + k / kTall * kParts * groups * kEach;
    for (long c = 0; c < columns; c += wide, i++) {
      const long n = columns - c;
      if ((k + kStep - 1) * w.N + column + c + wide <= w.K * w.N) {  // where columns are fewer, others are multiplied in vain
        const char* soon = at + later + (c + further < columns ? 2 * (c + further) : next + 2 * (c + further - columns));
        multiply_pairs<groups>(tiles, {at + 2 * c, pitch}, kStep / kTall, soon, part[i % 2]);
      } else {  // near the end of the weight's memory: what is not there is zero
        for (long j = 0; j < kStep; j++)
          for (long s = 0; s < wide; s += kSide)
            _mm512_store_si512(copy + j * wide + s, _mm512_maskz_loadu_epi16(j < rows ? first_halves(n - s) : 0, at + j * pitch + 2 * (c + s)));
        multiply_pairs<groups>(tiles, {(const char*)copy, 2 * wide}, (rows + kTall - 1) / kTall, nullptr, part[i % 2]);
      }
      if (last >= 0) add_pairs<groups>(part[(i + 1) % 2], x.rows, columns - last, sums + last, apart);
      last = c;
    }
    if (k + kStep >= w.K) add_pairs<groups>(part[(i + 1) % 2], x.rows, columns - last, sums + last, apart);
  }
}

// sums, `apart` apart, += x times some columns of W.
static void few_pairs(const Weight& w, const Parts& x, long column, long columns, float* sums, long apart) {
  (x.groups == 1 ? stream_pairs<1> : stream_pairs<2>)(w, x, column, columns, sums, apart);
}

}  // namespace ISA
