// Products of many rows (prefill, vision): bound by arithmetic.
//
// In: a Linear. Out: its result. x is brought into tiles of kTile rows, four panels at a time become floats in a block
// that stays in the second-level cache, and a tile of kTile x kColumns sums stays in registers.

namespace ISA {

// Rows [k, end) of a panel as floats.
static void decode(const Weight& w, long panel, long k, long end, float* out) {
  const char* at = (const char*)w.panels + panel * panel_bytes(w);
  const long groups = groups_of(w);
  for (; k < end; k++, out += kPanel) {
    const float* scale = w.scales ? w.scales + (panel * groups + k / w.group) * kPanel : nullptr;
    const float* offset = w.offsets ? w.offsets + (panel * groups + k / w.group) * kPanel : nullptr;
    for (int v = 0; v < kPanel; v += LANES) {
      V x;
      if (w.kind == Kind::kBFloat16) {
        x = load((const uint16_t*)at + k * kPanel + v);
      } else if (w.kind == Kind::kInt8) {
        x = load((const int8_t*)at + k * kPanel + v);
      } else if (w.kind == Kind::kInt4) {
        V low, high;
        load_nibbles((const uint8_t*)at + k / 2 * kPanel + v, low, high);
        x = k % 2 ? high : low;
      } else {
        x = load((const float*)at + k * kPanel + v);
      }
      if (scale) x = offset ? fma(x, load(scale + v), load(offset + v)) : x * load(scale + v);
      store(out + v, x);
    }
  }
}

// x's rows as tiles [ceil(M / kTile)][K][kTile]; rows beyond M are zero. Tile `tile` of it. A column is stored as
// LANES floats, whose last ones the next column overwrites; the tile's last columns are stored one by one.
static void tile_rows(const Linear& a, long tile, float* out) {
  const long K = a.weight.K, first = tile * kTile, rows = a.M - first < kTile ? a.M - first : kTile;
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

// sums[kTile][kColumns] (rows `stride` apart) = or += a tile of x times kColumns columns of a panel, `depth` deep.
INLINE void multiply(const float* x, const float* panel, long depth, float* sums, long stride, bool more) {
  constexpr int vectors = kColumns / LANES;
  V sum[kTile][vectors];
#pragma GCC unroll 16
  for (int r = 0; r < kTile; r++)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) sum[r][v] = zero();
  for (long k = 0; k < depth; k++, x += kTile, panel += kPanel) {
    V w[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) w[v] = load(panel + v * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < kTile; r++) {
      const V here = set(x[r]);
#pragma GCC unroll 2
      for (int v = 0; v < vectors; v++) sum[r][v] = fma(here, w[v], sum[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kTile; r++)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) {
      float* to = sums + r * stride + v * LANES;
      store(to, more ? load(to) + sum[r][v] : sum[r][v]);
    }
}

// Tiles [tile, end) times panels [first, first + panels); `tiles` is x as `tile_rows` leaves it.
static void block(const Linear& a, const float* tiles, long tile, long end, long first, long panels) {
  const Weight& w = a.weight;
  const bool once = w.K <= kDepth;
  const long stride = kGroup * kPanel;
  float* sums = scratch(kLinearSums, (once ? kTile : (end - tile) * kTile) * stride);
  float* decoded = w.kind == Kind::kFloat32 ? nullptr : scratch(kLinearPanels, kGroup * kDepth * kPanel);
  for (long k = 0; k < w.K; k += kDepth) {
    const long depth = w.K - k < kDepth ? w.K - k : kDepth;
    for (long p = 0; decoded && p < panels; p++) decode(w, first + p, k, k + depth, decoded + p * kDepth * kPanel);
    for (long t = tile; t < end; t++) {
      float* here = sums + (once ? 0 : (t - tile) * kTile * stride);
      for (long p = 0; p < panels; p++) {
        const float* panel =
            decoded ? decoded + p * kDepth * kPanel : (const float*)w.panels + ((first + p) * w.K + k) * kPanel;
        for (int c = 0; c < kPanel; c += kColumns)
          multiply(tiles + (t * w.K + k) * kTile, panel + c, depth, here + p * kPanel + c, stride, k > 0);
      }
      const long rows = a.M - t * kTile < kTile ? a.M - t * kTile : kTile;
      if (k + depth == w.K) finish(a, here, stride, t * kTile, rows, first, panels);
    }
  }
}

static void linear_many(const Linear& a) {
  const long panels = panels_of(a.weight), groups = (panels + kGroup - 1) / kGroup;
  const long tiles = (a.M + kTile - 1) / kTile;
  long chunks = (12 * threads() + groups - 1) / groups;  // enough pieces of work for the threads to end together
  const long longest = (tiles + 31) / 32, shortest = (tiles + 5) / 6;
  chunks = chunks < longest ? longest : chunks > shortest ? shortest : chunks;
  float* x = scratch(kLinearRows, tiles * kTile * a.weight.K);
#pragma omp parallel num_threads(threads())
  {
#pragma omp for schedule(static, 1)
    for (long t = 0; t < tiles; t++) tile_rows(a, t, x + t * kTile * a.weight.K);
#pragma omp for schedule(monotonic : dynamic, 1)
    for (long i = 0; i < groups * chunks; i++) {
      const long g = i / chunks, c = i % chunks, first = g * kGroup;
      block(a, x, tiles * c / chunks, tiles * (c + 1) / chunks, first, panels - first < kGroup ? panels - first : kGroup);
    }
  }
}

}  // namespace ISA
