// The register tile that products of many rows and attention of many queries run on.
//
// In: rows of floats, transposed into tiles [K][kTile] (tile_rows); panels [K][kPanel]. Out: sums of products (multiply).

namespace ISA {

constexpr int kTile = LANES == 16 ? 14 : LANES == 8 ? 6 : 4;  // rows of a register tile, at most
constexpr int kColumns = 2 * LANES;                           // and its columns

// Numbers [k, k + LANES) of up to LANES rows, of each number a vector.
INLINE void columns_of(const float* const* x, long rows, long k, V out[LANES]) {
#pragma GCC unroll 16
  for (int r = 0; r < LANES; r++) out[r] = r < rows ? load(x[r] + k) : zero();
  transpose(out);
}

// Rows row(0..rows) of K floats as a tile [K][kTile]; other rows are zero. A column is stored as LANES floats, whose last
// ones the next column overwrites.
template <class Row>
INLINE void tile_rows(Row row, long rows, long K, float* out) {
  const float* x[LANES];
  for (long r = 0; r < LANES; r++) x[r] = row(r < rows ? r : 0);
  long k = 0;
  for (; k + LANES <= K; k += LANES, out += LANES * kTile) {
    V block[LANES];
    columns_of(x, rows, k, block);
#pragma GCC unroll 16
    for (int i = 0; i < LANES - 1; i++) store(out + i * kTile, block[i]);
    __builtin_memcpy(out + (LANES - 1) * kTile, &block[LANES - 1], kTile * sizeof(float));
  }
  for (; k < K; k++, out += kTile)
    for (int r = 0; r < kTile; r++) out[r] = r < rows ? x[r][k] : 0.f;
}

// The same as a panel [K][kPanel] of up to kPanel rows, times `by`.
template <class Row>
INLINE void panel_rows(Row row, long rows, long K, float by, float* out) {
  for (long first = 0; first < kPanel; first += LANES, out += LANES) {
    const long here = rows - first;
    const float* x[LANES];
    for (long r = 0; r < LANES; r++) x[r] = row(r < here ? first + r : 0);
    long k = 0;
    for (; k + LANES <= K; k += LANES) {
      V block[LANES];
      columns_of(x, here, k, block);
#pragma GCC unroll 16
      for (int i = 0; i < LANES; i++) store(out + (k + i) * kPanel, block[i] * set(by));
    }
    for (; k < K; k++)
      for (int r = 0; r < LANES; r++) out[k * kPanel + r] = r < here ? x[r][k] * by : 0.f;
  }
}

// Memory that is read soon: at every step of a product one more cache line of it is fetched, `step` bytes apart.
struct Ahead {
  const void* at;
  long step;
};

// sums[rows][kColumns] (rows `stride` apart) = or += a tile of x times kColumns columns of a panel, `depth` deep.
template <int rows>
static void multiply(const float* x, const float* panel, long depth, float* sums, long stride, bool more, Ahead soon) {
  constexpr int vectors = kColumns / LANES;
  V sum[rows][vectors];
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) sum[r][v] = zero();
  const char* fetched = (const char*)soon.at;
  for (long k = 0; k < depth; k++, x += kTile, panel += kPanel, fetched += soon.step) {
    prefetch(fetched);
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

typedef void (*Multiply)(const float*, const float*, long, float*, long, bool, Ahead);

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

}  // namespace ISA
