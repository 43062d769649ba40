// Products of many rows (prefill, vision): bound by arithmetic.
//
// In: a Linear. Out: its result. x is brought into tiles of at most kTile rows, all equally high: of 16 rows two tiles of 8
// take little more than half the time of two of 14. kGroup panels of 32 columns at a time become floats in a block that
// stays in the second-level cache; a tile of rows x kColumns sums stays in registers.

namespace ISA {

constexpr int kTile = LANES == 16 ? 14 : LANES == 8 ? 6 : 4;  // rows of a register tile, at most
constexpr int kColumns = 2 * LANES;                           // and its columns
constexpr int kGroup = 4;                                     // panels that are worked on together
constexpr long kDepth = 1024;                                 // rows of W that are worked on together

// Rows [k, end) of up to 32 columns as floats [end - k][32]; columns that are not there are zero.
template <Kind kind>
static void decode(const Weight& w, long column, long columns, long k, long end, float* out) {
  constexpr int shared = rows_in_a_byte(kind);
  const long pitch = row_bytes(kind, w.N);
  for (; k < end; k++, out += kPanel) {
    const char* at = (const char*)w.data + k / shared * pitch + row_bytes(kind, column);
    prefetch(at + 16 * pitch);
    prefetch(at + 16 * pitch + 64);
    const long group = w.scales ? k / w.group * w.N + column : 0;
#pragma GCC unroll 8
    for (int c = 0; c < kPanel; c += LANES) {
      const long n = columns - c;
      V x = zero();
      if (n > 0) {
        if constexpr (kind == Kind::kInt4) {
          V odd;
          n >= LANES ? weights<true>(at + c, LANES, x, odd) : weights<false>(at + c, n, x, odd);
          if (k % 2) x = odd;
        } else {
          const char* from = at + row_bytes(kind, c);
          x = n >= LANES ? weights<kind, true>(from, LANES) : weights<kind, false>(from, n);
        }
        if (w.offsets) x = fma(x, some(w.scales + group + c, n), some(w.offsets + group + c, n));
        else if (w.scales) x *= some(w.scales + group + c, n);
      }
      store(out + c, x);
    }
  }
}

typedef void (*Decode)(const Weight&, long, long, long, long, float*);

static Decode decode_of(Kind kind) {
  return kind == Kind::kFloat32    ? decode<Kind::kFloat32>
         : kind == Kind::kBFloat16 ? decode<Kind::kBFloat16>
         : kind == Kind::kInt8     ? decode<Kind::kInt8>
                                   : decode<Kind::kInt4>;
}

// x's rows as tiles [tiles][K][kTile], `height` rows in each; others are zero. Tile `tile` of it. A column is stored as
// LANES floats, whose last ones the next column overwrites; the tile's last columns are stored one by one.
static void tile_rows(const Linear& a, long tile, long height, float* out) {
  const long K = a.weight.K, first = tile * height, rows = a.M - first < height ? a.M - first : height;
  const float* x = a.x + first * a.x_stride;
  long k = 0;
  for (; k + LANES < K; k += LANES) {
    V block[LANES];
#pragma GCC unroll 16
    for (int r = 0; r < LANES; r++) block[r] = r < rows ? load(x + r * a.x_stride + k) : zero();
    transpose(block);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) store(out + (k + i) * kTile, block[i]);
  }
  for (; k < K; k++)
    for (int r = 0; r < kTile; r++) out[k * kTile + r] = r < rows ? x[r * a.x_stride + k] : 0.f;
}

// sums[rows][kColumns] (rows `stride` apart) = or += a tile of x times kColumns columns of a panel, `depth` deep.
template <int rows>
static void multiply(const float* x, const float* panel, long depth, float* sums, long stride, bool more) {
  constexpr int vectors = kColumns / LANES;
  V sum[rows][vectors];
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) sum[r][v] = zero();
  for (long k = 0; k < depth; k++, x += kTile, panel += kPanel) {
    V w[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) w[v] = load(panel + v * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
      const V here = set(x[r]);
#pragma GCC unroll 2
      for (int v = 0; v < vectors; v++) sum[r][v] = fma(here, w[v], sum[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) {
      float* to = sums + r * stride + v * LANES;
      store(to, more ? load(to) + sum[r][v] : sum[r][v]);
    }
}

typedef void (*Multiply)(const float*, const float*, long, float*, long, bool);

static Multiply multiply_of(long rows) {
#if LANES == 16
  static const Multiply table[] = {multiply<1>, multiply<2>, multiply<3>, multiply<4>, multiply<5>, multiply<6>,
                                   multiply<7>, multiply<8>, multiply<9>, multiply<10>, multiply<11>, multiply<12>,
                                   multiply<13>, multiply<14>};
#elif LANES == 8
  static const Multiply table[] = {multiply<1>, multiply<2>, multiply<3>, multiply<4>, multiply<5>, multiply<6>};
#else
  static const Multiply table[] = {multiply<1>, multiply<2>, multiply<3>, multiply<4>};
#endif
  static_assert(sizeof table / sizeof *table == kTile, "one for each number of rows");
  return table[rows - 1];
}

// Tiles [tile, end) times group `group` of columns; `tiles` is x as `tile_rows` leaves it. Of kSwiglu half of the panels
// are the second weight's.
static void block(const Linear& a, const float* tiles, long height, long tile, long end, long group) {
  const bool pairs = a.activation == Activation::kSwiglu, once = a.weight.K <= kDepth;
  const long K = a.weight.K, N = a.weight.N, half = pairs ? kGroup / 2 : kGroup, stride = kGroup * kPanel;
  const long column = group * half * kPanel, columns = N - column < half * kPanel ? N - column : half * kPanel;
  float* sums = scratch(kLinearSums, (once ? kTile : (end - tile) * kTile) * stride);
  float* decoded = scratch(kLinearPanels, kGroup * kDepth * kPanel);
  for (long k = 0; k < K; k += kDepth) {
    const long depth = K - k < kDepth ? K - k : kDepth;
    for (long p = 0; p < kGroup; p++) {
      const Weight& w = p < half ? a.weight : a.up;
      const long at = p % half * kPanel;
      if (at < columns) decode_of(w.kind)(w, column + at, columns - at, k, k + depth, decoded + p * kDepth * kPanel);
    }
    for (long t = tile; t < end; t++) {
      float* here = sums + (once ? 0 : (t - tile) * kTile * stride);
      const long rows = a.M - t * height < height ? a.M - t * height : height;
      const Multiply multiply = multiply_of(rows);
      for (long p = 0; p < kGroup; p++)
        for (long c = 0; c < kPanel && p % half * kPanel + c < columns; c += kColumns)
          multiply(tiles + (t * K + k) * kTile, decoded + p * kDepth * kPanel + c, depth, here + p * kPanel + c, stride,
                   k > 0);
      if (k + depth == K) finish(a, here, here + half * kPanel, stride, t * height, rows, column, columns);
    }
  }
}

static void linear_many(const Linear& a) {
  const long width = kPanel * (a.activation == Activation::kSwiglu ? kGroup / 2 : kGroup);
  const long groups = (a.weight.N + width - 1) / width, tiles = (a.M + kTile - 1) / kTile;
  const long height = (a.M + tiles - 1) / tiles;
  long chunks = (12 * threads() + groups - 1) / groups;  // enough pieces of work for the threads to end together
  const long longest = (tiles + 31) / 32, shortest = (tiles + 5) / 6;
  chunks = chunks < longest ? longest : chunks > shortest ? shortest : chunks;
  float* x = scratch(kLinearRows, tiles * kTile * a.weight.K);
#pragma omp parallel num_threads(threads())
  {
#pragma omp for schedule(static, 1)
    for (long t = 0; t < tiles; t++) tile_rows(a, t, height, x + t * kTile * a.weight.K);
#pragma omp for schedule(monotonic : dynamic, 1)
    for (long i = 0; i < groups * chunks; i++) {
      const long c = i % chunks;
      block(a, x, height, tiles * c / chunks, tiles * (c + 1) / chunks, i / chunks);
    }
  }
}

}  // namespace ISA
