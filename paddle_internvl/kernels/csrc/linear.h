// Matrix products x W with W in packed panels, and what follows them in the same pass (linear_arguments.h).
//
// Few rows (decoding) are bound by memory: every thread streams a run of panels once, all rows beside each other.
// Many rows (prefill, vision) are bound by arithmetic: x is brought into tiles of kTile rows, four panels at a time
// become floats in a block that stays in the second-level cache, and a tile of kTile x kColumns sums stays in registers.

namespace ISA {

constexpr int kPanel = 32;                                                // columns of a panel
constexpr int kVectors = kPanel / LANES;                                  // of a panel's row
constexpr int kFew = LANES == 16 ? 8 : LANES == 8 ? 3 : 1;                // rows that are streamed through at once
constexpr int kTile = LANES == 16 ? 14 : LANES == 8 ? 6 : 4;              // rows of a register tile
constexpr int kColumns = 2 * LANES;                                       // and its columns
constexpr int kGroup = 4;                                                 // panels that are worked on together
constexpr long kDepth = 1024;                                             // rows of W that are worked on together
constexpr long kAhead = 8192;                                             // bytes that are fetched ahead
constexpr long kFewRows = 8;                                              // up to here rows are streamed

static const float kZeros[kPanel] = {};

// Bytes of one row of a panel.
static constexpr long row_bytes(Kind kind) {
  return kind == Kind::kFloat32 ? 128 : kind == Kind::kBFloat16 ? 64 : kind == Kind::kInt8 ? 32 : 16;
}
static long panel_bytes(const Weight& w) {
  return (w.kind == Kind::kInt4 ? (w.K + 1) / 2 * 2 : w.K) * row_bytes(w.kind);
}
static long groups_of(const Weight& w) { return w.scales ? (w.K + w.group - 1) / w.group : 1; }
static long panels_of(const Weight& w) { return (w.N + kPanel - 1) / kPanel; }

template <Kind kind>
INLINE V weights(const char* row, int vector) {
  if constexpr (kind == Kind::kFloat32) return load((const float*)row + vector * LANES);
  if constexpr (kind == Kind::kBFloat16) return load((const uint16_t*)row + vector * LANES);
  return load((const int8_t*)row + vector * LANES);
}

// Writes rows x columns of sums to where they belong: `panels` panels from number `first`, sums `stride` apart.
static void finish(const Linear& a, const float* sums, long stride, long row, long rows, long first, long panels) {
  const bool pairs = a.activation == Activation::kSwiglu;
  for (long r = 0; r < rows; r++) {
    for (long p = 0; p < panels; p += pairs ? 2 : 1) {
      const long column = (first + p) * kPanel / (pairs ? 2 : 1);
      const long width = a.columns - column < kPanel ? a.columns - column : kPanel;
      const float* bias = a.bias ? a.bias + (first + p) * kPanel : kZeros;
      const long biased = a.bias && !pairs ? width : kPanel;
      const float* from = sums + r * stride + p * kPanel;
      const long at = (row + r) * a.out_stride + column;
      for (int v = 0; v < kPanel && v < width; v += LANES) {
        const long n = width - v < LANES ? width - v : LANES;
        const bool all = n == LANES;
        V y = load(from + v) + (biased - v >= LANES ? load(bias + v) : load_first(bias + v, n));
        if (a.activation == Activation::kGelu) y = gelu(y);
        if (pairs) y = silu(y) * (load(from + kPanel + v) + (a.bias ? load(bias + kPanel + v) : zero()));
        if (a.layer_scale) y *= all ? load(a.layer_scale + column + v) : load_first(a.layer_scale + column + v, n);
        if (a.residual) y += all ? load(a.residual + at + v) : load_first(a.residual + at + v, n);
        if (all) store(a.out + at + v, y);
        else store_first(a.out + at + v, y, n);
      }
    }
  }
}

// ---- few rows

// sums[R] += x[R] times rows k..end of a panel, without scales. More than one set of sums where R is small: the
// next addition needs not wait for the last.
template <Kind kind, int R>
INLINE void stream(const char* panel, const float* x, long stride, long k, long end, V sums[R][kVectors]) {
  constexpr int sets = R * kVectors <= 2 ? 4 : R * kVectors <= 4 ? 2 : 1;
  constexpr long row = row_bytes(kind);
  V more[sets][R][kVectors] = {};
  for (; k + sets <= end; k += sets) {
    const char* at = panel + k * row;
#pragma GCC unroll 8
    for (long line = 0; line < sets * row; line += 64) prefetch(at + kAhead + line);
#pragma GCC unroll 4
    for (int s = 0; s < sets; s++)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) {
        const V w = weights<kind>(at + s * row, v);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) more[s][r][v] = fma(set(x[r * stride + k + s]), w, more[s][r][v]);
      }
  }
  for (; k < end; k++)
    for (int v = 0; v < kVectors; v++) {
      const V w = weights<kind>(panel + k * row, v);
      for (int r = 0; r < R; r++) more[0][r][v] = fma(set(x[r * stride + k]), w, more[0][r][v]);
    }
#pragma GCC unroll 4
  for (int s = 0; s < sets; s++)
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) sums[r][v] += more[s][r][v];
}

// The same for int4: k is even; two rows at a time.
template <int R>
INLINE void stream_nibbles(const char* panel, const float* x, long stride, long k, long end, V sums[R][kVectors]) {
  V odd[R][kVectors] = {};
  for (; k < end; k += 2) {
    const uint8_t* at = (const uint8_t*)panel + k / 2 * kPanel;
    prefetch(at + kAhead);
    const bool both = k + 1 < end;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v++) {
      V low, high;
      load_nibbles(at + v * LANES, low, high);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        sums[r][v] = fma(set(x[r * stride + k]), low, sums[r][v]);
        odd[r][v] = fma(set(both ? x[r * stride + k + 1] : 0.f), high, odd[r][v]);
      }
    }
  }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < kVectors; v++) sums[r][v] += odd[r][v];
}

// One panel times R rows; `totals` [R][groups] are the sums of x over every group, where there are offsets.
template <Kind kind, int R>
static void few(const Linear& a, long panel, const float* x, const float* totals, float* out) {
  const Weight& w = a.weight;
  const char* at = (const char*)w.panels + panel * panel_bytes(w);
  const long groups = groups_of(w);
  V result[R][kVectors] = {};
  if constexpr (kind == Kind::kFloat32 || kind == Kind::kBFloat16) {
    stream<kind, R>(at, x, a.x_stride, 0, w.K, result);
  } else {
    for (long g = 0; g < groups; g++) {
      const long k = g * w.group, end = k + w.group < w.K ? k + w.group : w.K;
      V sums[R][kVectors] = {};
      if constexpr (kind == Kind::kInt8) stream<kind, R>(at, x, a.x_stride, k, end, sums);
      else stream_nibbles<R>(at, x, a.x_stride, k, end, sums);
      const float* scale = w.scales + (panel * groups + g) * kPanel;
      for (int v = 0; v < kVectors; v++)
        for (int r = 0; r < R; r++) {
          result[r][v] = fma(sums[r][v], load(scale + v * LANES), result[r][v]);
          if (w.offsets) {
            const V offset = load(w.offsets + (panel * groups + g) * kPanel + v * LANES);
            result[r][v] = fma(set(totals[r * groups + g]), offset, result[r][v]);
          }
        }
    }
  }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < kVectors; v++) store(out + r * 2 * kPanel + v * LANES, result[r][v]);
}

typedef void (*Few)(const Linear&, long, const float*, const float*, float*);

template <Kind kind>
static Few few_of(long rows) {
  static const Few table[] = {few<kind, 1>, few<kind, kFew < 2 ? 1 : 2>, few<kind, kFew < 3 ? 1 : 3>,
                              few<kind, kFew < 4 ? 1 : 4>, few<kind, kFew < 5 ? 1 : 5>, few<kind, kFew < 6 ? 1 : 6>,
                              few<kind, kFew < 7 ? 1 : 7>, few<kind, kFew < 8 ? 1 : 8>};
  return table[rows - 1];
}

// Thread `thread` of `count`'s part of a product of few rows. For use within a parallel region; nothing is waited for.
static void linear_part(const Linear& a, int thread, int count) {
  const Weight& w = a.weight;
  const long step = a.activation == Activation::kSwiglu ? 2 : 1, units = panels_of(w) / step;
  const long first = units * thread / count * step, last = units * (thread + 1) / count * step;
  const long groups = groups_of(w);
  const float* totals = nullptr;
  if (w.offsets) {
    float* made = scratch(kLinearSums, a.M * groups);
    for (long r = 0; r < a.M; r++)
      for (long g = 0; g < groups; g++) {
        float total = 0;
        for (long k = g * w.group; k < (g + 1) * w.group && k < w.K; k++) total += a.x[r * a.x_stride + k];
        made[r * groups + g] = total;
      }
    totals = made;
  }
  float sums[kFew * 2 * kPanel];
  for (long p = first; p < last; p += step)
    for (long r = 0; r < a.M; r += kFew) {
      const long rows = a.M - r < kFew ? a.M - r : kFew;
      const Few run = w.kind == Kind::kFloat32    ? few_of<Kind::kFloat32>(rows)
                      : w.kind == Kind::kBFloat16 ? few_of<Kind::kBFloat16>(rows)
                      : w.kind == Kind::kInt8     ? few_of<Kind::kInt8>(rows)
                                                  : few_of<Kind::kInt4>(rows);
      for (long q = 0; q < step; q++)
        run(a, p + q, a.x + r * a.x_stride, totals ? totals + r * groups : nullptr, sums + q * kPanel);
      finish(a, sums, 2 * kPanel, r, rows, p, step);
    }
}

// ---- many rows

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

static void linear(const Linear& a) {
  if (a.M > kFewRows) return linear_many(a);
#pragma omp parallel num_threads(threads())
  linear_part(a, omp_get_thread_num(), omp_get_num_threads());
}

}  // namespace ISA
