// Products of many rows (prefill, vision): bound by arithmetic.
//
// In: a Linear. Out: its result. x is brought into tiles of at most kTile rows, all equally high: of 16 rows two tiles of 8
// take little more than half the time of two of 14. kGroup panels of 32 columns at a time become floats in a block that
// stays in the second-level cache; a tile of rows x kColumns sums stays in registers.

namespace ISA {

constexpr int kGroup = 4;     // panels that are worked on together
constexpr long kDepth = 1024; // rows of W that are worked on together

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

// Rows [M, K] in tiles of equal height. All tiles of kDepth columns, which are worked on together, lie side by side.
struct TiledRows {
  float* x;  // [K / kDepth][count][kDepth][kTile]
  long M, K, count, height;

  long rows(long tile) const { return M - tile * height < height ? M - tile * height : height; }
  long depth(long k) const { return K - k < kDepth ? K - k : kDepth; }
  // Column k, the first of its kDepth ones.
  float* at(long tile, long k) const { return x + (count * k + tile * depth(k)) * kTile; }
};

static TiledRows tiles_of(long M, long K, float* x) {
  const long count = (M + kTile - 1) / kTile;
  return {x, M, K, count, (M + count - 1) / count};
}

// Floats of tiles.
static long tiled(long M, long K) { return (M + kTile - 1) / kTile * kTile * K; }

// Rows row(0..) of a tile.
template <class Row>
INLINE void fill_tile(const TiledRows& tiles, long tile, Row row) {
  for (long k = 0; k < tiles.K; k += kDepth)
    tile_rows([&](long r) { return row(r) + k; }, tiles.rows(tile), tiles.depth(k), tiles.at(tile, k));
}

// The same of sums, as `finish` writes rows.
static void finish_tile(const Linear& a, const TiledRows& to, long tile, const float* sums, const float* up, long stride,
                        long column, long columns) {
  const long rows = to.rows(tile);
  for (long c = 0; c < columns; c += LANES) {
    const long n = columns - c < LANES ? columns - c : LANES, k = (column + c) / kDepth * kDepth;
    V block[LANES];
    for (long r = 0; r < LANES; r++)
      block[r] = r < rows ? finished(a, sums + r * stride + c, up + r * stride + c, tile * to.height + r, column + c, n) : zero();
    transpose(block);
    float* out = to.at(tile, k) + (column + c - k) * kTile;
    for (long i = 0; i < n; i++) __builtin_memcpy(out + i * kTile, &block[i], kTile * sizeof(float));
  }
}

// A group of columns of a product. Of kSwiglu half of the panels are the second weight's.
struct Group {
  const Linear& a;
  long half, first, columns;  // panels of one weight, columns

  Group(const Linear& linear, long group) : a(linear) {
    half = a.activation == Activation::kSwiglu ? kGroup / 2 : kGroup;
    first = group * half * kPanel;
    columns = a.weight.N - first < half * kPanel ? a.weight.N - first : half * kPanel;
  }
  const Weight& weight(long panel) const { return panel < half ? a.weight : a.up; }
  long column(long panel) const { return panel % half * kPanel; }

  // Line `i` of each of the rows from k on, of the lines that a row has in all panels; of none: `other`.
  Ahead lines(long i, long k, Ahead other) const {
    const long each = (row_bytes(a.weight.kind, kPanel) + 63) / 64, panel = i / each;
    if (panel >= kGroup || column(panel) >= columns) return other;
    const Weight& w = weight(panel);
    const long pitch = row_bytes(w.kind, w.N);
    return {(const char*)w.data + k / rows_in_a_byte(w.kind) * pitch + row_bytes(w.kind, first + column(panel)) + i % each * 64, pitch};
  }
};

// Tiles [tile, end) times group `group` of columns. While a tile is multiplied the next one is fetched, and the rows of
// W that come next.
static void block(const Linear& a, const TiledRows& tiles, long tile, long end, long group, long next_group) {
  const Group g(a, group), next(a, next_group);
  const long K = a.weight.K, stride = kGroup * kPanel;
  const bool once = K <= kDepth;
  float* sums = scratch(kLinearSums, (once ? kTile : (end - tile) * kTile) * stride);
  float* decoded = scratch(kLinearPanels, kGroup * kDepth * kPanel);
  for (long k = 0; k < K; k += kDepth) {
    const long depth = tiles.depth(k), after = k + kDepth < K ? k + kDepth : 0;
    for (long p = 0; p < kGroup; p++) {
      const Weight& w = g.weight(p);
      const long at = g.column(p);
      if (at < g.columns)
        decode_of(w.kind)(w, g.first + at, g.columns - at, k, k + depth, decoded + p * kDepth * kPanel);
    }
    long line = 0;
    for (long t = tile; t < end; t++) {
      float* here = sums + (once ? 0 : (t - tile) * kTile * stride);
      const float* x = tiles.at(t, k);
      const Ahead following = {t + 1 < end ? tiles.at(t + 1, k) : tiles.at(tile, after), 64};
      const Multiply multiply = multiply_of(tiles.rows(t));
      for (long p = 0; p < kGroup; p++)
        for (long c = 0; c < kPanel && g.column(p) + c < g.columns; c += kColumns)
          multiply(x, decoded + p * kDepth * kPanel + c, depth, here + p * kPanel + c, stride, k > 0,
                   p == 0 ? following : (after ? g : next).lines(line++, after, {x, 0}));
      if (k + depth < K) continue;
      const float* up = here + g.half * kPanel;
      if (a.out_tiles) finish_tile(a, tiles_of(a.M, a.weight.N, a.out_tiles), t, here, up, stride, g.first, g.columns);
      else finish(a, here, up, stride, t * tiles.height, tiles.rows(t), g.first, g.columns);
    }
  }
}

static void linear_many(const Linear& a) {
  const long width = kPanel * (a.activation == Activation::kSwiglu ? kGroup / 2 : kGroup), K = a.weight.K;
  const long groups = (a.weight.N + width - 1) / width;
  const TiledRows tiles = tiles_of(a.M, K, a.x_tiles ? const_cast<float*>(a.x_tiles) : scratch(kLinearRows, tiled(a.M, K)));
  long chunks = (12 * threads() + groups - 1) / groups;  // enough pieces of work for the threads to end together
  const long longest = (tiles.count + 31) / 32, shortest = (tiles.count + 5) / 6;
  chunks = chunks < longest ? longest : chunks > shortest ? shortest : chunks;
#pragma omp parallel num_threads(threads())
  {
    if (!a.x_tiles) {
#pragma omp for schedule(static)
      for (long t = 0; t < tiles.count; t++)
        fill_tile(tiles, t, [&](long r) { return a.x + (t * tiles.height + r) * a.x_stride; });
    }
#pragma omp for schedule(monotonic : dynamic, 1)
    for (long i = 0; i < groups * chunks; i++) {
      const long c = i / groups;
      block(a, tiles, tiles.count * c / chunks, tiles.count * (c + 1) / chunks, i % groups,
            (i + threads()) % groups);
    }
  }
}

}  // namespace ISA
