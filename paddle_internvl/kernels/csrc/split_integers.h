// Products of few rows (decoding) with int8 and int4 weights by AMX tiles, in float32: see split_rows.h. Integers become
// bfloat16 panels in the first-level cache, 64 rows x 32 columns at a time; scales multiply their sums.
//
// In: rows of x, a weight in int8 or int4. Out: sums of some columns (few_integers).

namespace ISA {

constexpr long kGrouped = 64;         // rows of W that are worked on together
constexpr long kBroad = 64;           // and columns: a cache line
constexpr long kIntegersSoon = 32768;  // bytes that are fetched ahead

static bool fits_integers(const Weight& w) {
  return (w.kind == Kind::kInt8 || w.kind == Kind::kInt4) && (w.group % kSide == 0 || w.group >= w.K);
}

// Whether products of many rows with such a weight go to tiles (split_many.h), and whether one does.
static bool fits_split(const Weight& w) { return w.kind == Kind::kBFloat16 || fits_integers(w); }
static bool fits_split(const Linear& a) {
  const bool alike = !a.weight.offsets == !a.up.offsets && groups_of(a.weight) == groups_of(a.up);
  const bool second = a.activation != Activation::kSwiglu || (fits_split(a.up) && alike);
  return fits_split(a.weight) && second && !a.x_tiles && !a.out_tiles;
}
static void linear_split(const Linear& a);

// Rows as tiles [K / 32][tiles][16 rows][32], in which row 3 r + i is part i of row r.
static Parts stacked_parts(const float* x, long x_stride, long rows, long K) {
  const long tiles = (kParts * rows + kTall - 1) / kTall, steps = blocks_in(K);
  Half* at = (Half*)scratch(kLinearDigits, steps * tiles * kEach / 2);
  for (long r = 0; r < rows; r++)
    for (long k = 0; k < steps; k++) {
      __m512i part[kParts];
      split(x + r * x_stride + k * kSide, K - k * kSide, part);
      for (long i = 0; i < kParts; i++) _mm512_store_si512(at + k * tiles * kEach + (kParts * r + i) * kSide, part[i]);
    }
  return {at, rows, tiles};
}

// Rows k and k + 1 of integers, of which `at` is the first, beside each other as bfloat16: n of 32 columns, the others
// zero. Without `both` the second row is zero, or anything in int4.
template <Kind kind, bool all>
INLINE void pack_integers(const char* at, long pitch, long n, bool both, Half* to) {
  const __m512i low = _mm512_setr_epi32(0, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0xc100, 0xc0e0, 0xc0c0,
                                        0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80);  // 0 to 7 and -8 to -1 as bfloat16
  const __m512i high = _mm512_slli_epi32(low, 16);
#pragma GCC unroll 2
  for (int c = 0; c < 32; c += 16) {
    const __mmask16 here = all ? 0xffff : first_lanes(n - c);
    const __m128i one = _mm_maskz_loadu_epi8(here, at + c);
    __m512i pairs;
    if constexpr (kind == Kind::kInt4) {
      const __m512i bytes = _mm512_cvtepu8_epi32(one);  // a permutation takes its index from the lowest four bits
      pairs = _mm512_or_si512(_mm512_permutexvar_epi32(bytes, low), _mm512_permutexvar_epi32(_mm512_srli_epi32(bytes, 4), high));
    } else {
      const __m128i two = _mm_maskz_loadu_epi8(all || both ? here : 0, at + pitch + c);
      const __m512i even = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(one)));
      const __m512i odd = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(two)));
      pairs = _mm512_or_si512(_mm512_srli_epi32(even, 16), odd);
    }
    _mm512_store_si512(to + 2 * c, pairs);
  }
}

// sums [16 T][32] = T tiles of each of `steps` steps times panels. Tiles 0-2 are sums of columns 0-15, 3-5 of 16-31.
template <int T>
INLINE void multiply_panel(const Half* rows, const Half* panel, long steps, float* sums) {
  __asm__ volatile("" ::: "memory");  // GCC does not know that tiles are loaded from memory
  check(rows, steps * T * kEach * 2);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (long k = 0; k < steps; k++, rows += T * kEach, panel += kSquare) {
    _tile_loadd(7, panel, 128);
    _tile_loadd(6, rows, 64);
    _tile_dpbf16ps(0, 6, 7);
    if constexpr (T > 1) {
      _tile_loadd(6, rows + kEach, 64);
      _tile_dpbf16ps(1, 6, 7);
    }
    if constexpr (T > 2) {
      _tile_loadd(6, rows + 2 * kEach, 64);
      _tile_dpbf16ps(2, 6, 7);
    }
    _tile_loadd(7, panel + kSide, 128);
    if constexpr (T > 2) {
      _tile_dpbf16ps(5, 6, 7);
      _tile_loadd(6, rows + kEach, 64);
    }
    if constexpr (T > 1) {
      _tile_dpbf16ps(4, 6, 7);
      _tile_loadd(6, rows, 64);
    }
    _tile_dpbf16ps(3, 6, 7);
  }
  _tile_stored(0, sums, 128);
  _tile_stored(3, sums + 16, 128);
  if constexpr (T > 1) {
    _tile_stored(1, sums + kEach, 128);
    _tile_stored(4, sums + kEach + 16, 128);
  }
  if constexpr (T > 2) {
    _tile_stored(2, sums + 2 * kEach, 128);
    _tile_stored(5, sums + 2 * kEach + 16, 128);
  }
  __asm__ volatile("" ::: "memory");
}

// What tiles left of n columns, and where it belongs.
struct Left {
  const float *part = nullptr, *scales;
  float* sums;
  long n;

  void add(long rows, long apart) const {
    for (long c = 0; part && c < kSide && c < n; c += 16) {
      const __m512 scale = _mm512_maskz_loadu_ps(first_lanes(n - c), scales + c);
      const float* from = part + c;
      for (long r = 0; r < rows; r++, from += kParts * kSide) {
        const __m512 sum = _mm512_load_ps(from) + (_mm512_load_ps(from + kSide) + _mm512_load_ps(from + 2 * kSide));
        float* to = sums + r * apart + c;
        _mm512_storeu_ps(to, _mm512_fmadd_ps(sum, scale, _mm512_loadu_ps(to)));
      }
    }
  }
};

// Rows [k, end) of n columns of W, of which `at` is the first, as panels; `soon`, if there is one, is fetched.
template <Kind kind>
INLINE void take_panels(const char* at, long pitch, long k, long end, long n, const char* soon, Half* panels) {
  constexpr long shared = rows_in_a_byte(kind);
  if (end - k == kGrouped && n >= kSide) {
#pragma GCC unroll 4
    for (long i = 0; i < kGrouped; i += 2) {
      if (soon) {
        prefetch(soon + i / shared * pitch);
        if (shared == 1) prefetch(soon + i / shared * pitch + pitch);
      }
      pack_integers<kind, true>(at + i / shared * pitch, pitch, n, true, panels + i * kSide);
    }
    return;
  }
  for (long i = 0; i < blocks_in(end - k) * kSide; i += 2) {
    _mm512_store_si512(panels + i * kSide, __m512i{});
    _mm512_store_si512(panels + i * kSide + kSide, __m512i{});
    if (k + i < end) pack_integers<kind, false>(at + i / shared * pitch, pitch, n, k + i + 1 < end, panels + i * kSide);
  }
}

template <Kind kind, int T>
static void stream_integers(const Weight& w, const Parts& x, long column, long columns, float* sums, long apart) {
  constexpr long shared = rows_in_a_byte(kind), ahead = kIntegersSoon * shared / kGrouped / kBroad * kBroad;
  const long pitch = w.N, next = kGrouped / shared * pitch, later = ahead / columns * next, further = ahead % columns;
  alignas(64) Half panels[2][kGrouped * kSide];
  alignas(64) float part[2][T * kEach];  // of these columns, and of those before, which are added meanwhile
  Left left;
  for (long k = 0, end, i = 0; k < w.K; k = end) {
    const long border = (k / w.group + 1) * w.group, most = border < w.K ? border : w.K;
    end = k + kGrouped < most ? k + kGrouped : most;
    const char* at = (const char*)w.data + k / shared * pitch + column;
    const float* scales = w.scales + k / w.group * w.N + column;
    for (long c = 0; c < columns; c += kSide, i++) {
      const char* soon = at + later + (c + further < columns ? c + further : next + c + further - columns);
      take_panels<kind>(at + c, pitch, k, end, columns - c, c % kBroad ? nullptr : soon, panels[i % 2]);
      multiply_panel<T>(x.at + k / kSide * T * kEach, panels[i % 2], blocks_in(end - k), part[i % 2]);
      left.add(x.rows, apart);
      left = {part[i % 2], scales + c, sums + c, columns - c};
    }
  }
  left.add(x.rows, apart);
}

// sums, `apart` apart, += x times some columns of W, without offsets.
static void few_integers(const Weight& w, const Parts& x, long column, long columns, float* sums, long apart) {
  typedef void (*Stream)(const Weight&, const Parts&, long, long, float*, long);
  static const Stream table[][3] = {
      {stream_integers<Kind::kInt8, 1>, stream_integers<Kind::kInt8, 2>, stream_integers<Kind::kInt8, 3>},
      {stream_integers<Kind::kInt4, 1>, stream_integers<Kind::kInt4, 2>, stream_integers<Kind::kInt4, 3>},
  };
  table[w.kind == Kind::kInt4][x.groups - 1](w, x, column, columns, sums, apart);
}

// Few rows as tiles for products with a weight; nothing where floats or digits are faster.
static Parts parts_of(const Weight& w, const float* x, long x_stride, long rows) {
  if (fits_pairs(w, rows)) return paired_parts(x, x_stride, rows, w.K);
  return rows >= kTileRows && fits_integers(w) ? stacked_parts(x, x_stride, rows, w.K) : Parts();
}

// sums, `apart` apart, += x times some columns of W, without offsets.
static void few_parts(const Weight& w, const Parts& x, long column, long columns, float* sums, long apart) {
  (w.kind == Kind::kBFloat16 ? few_pairs : few_integers)(w, x, column, columns, sums, apart);
}

}  // namespace ISA
