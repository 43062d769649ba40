// Attention of many queries: prompts, and the patches of a picture. See attention.h.
//
// A task is kPanel queries of a head. Scores are made transposed, [keys][kPanel queries]: a query is a lane, so that its
// maximum and sum need nothing across lanes, and both products are those of tiles.h: tiles of keys times a panel of
// queries, tiles of values times the panel of weights.

namespace ISA {
namespace attending {

constexpr int64_t kKeys = 252 / kTile * kTile;  // keys between two looks at the running maximum
constexpr int kParts = kPanel / LANES;          // vectors of queries

// Keys and values of some kv heads of a row, laid out for the products.
struct LaidOut {
  int64_t row, first_head, heads;  // whose
  int64_t first, end;              // positions
  int64_t height;                  // floats of a value in a tile
  float *keys, *values;            // per head tiles of keys [E][kTile], and tiles of values' floats [end - first][kTile]
  int64_t keys_apart, values_apart, tile_apart;
};

// Sizes of the memory for E floats a head and the positions [first, end).
static void set_sizes(LaidOut& to, int64_t e) {
  const int64_t tiles = (e + kTile - 1) / kTile, key_tiles = (to.end - to.first + kTile - 1) / kTile;
  to.height = (e + tiles - 1) / tiles;
  to.keys_apart = key_tiles * kTile * e;
  to.tile_apart = key_tiles * kTile * kTile;
  to.values_apart = tiles * to.tile_apart;
}

// Lay out the keys at positions [p, p + kTile) of a head, those before the row's end.
static void lay_out_keys(const Places& keys, const LaidOut& to, int64_t e, int64_t head, int64_t p) {
  tile_rows([&](long i) { return at(keys, to.row, to.first_head + head, p + i); }, least(kTile, to.end - p), e,
            to.keys + head * to.keys_apart + (p - to.first) * e);
}

// The same of values.
static void lay_out_values(const Places& values, const LaidOut& to, int64_t e, int64_t head, int64_t p) {
  const int64_t here = least(kTile, to.end - p);
  for (int64_t i = 0; i < here; i++) {
    const float* v = at(values, to.row, to.first_head + head, p + i);
    float* out = to.values + head * to.values_apart + (p - to.first + i) * kTile;
    for (int64_t d = 0; d < e; d += to.height, out += to.tile_apart) {
      const int64_t n = least(to.height, e - d);
      if (n == to.height && d + LANES <= e && i + 1 < here) store(out, load(v + d));
      else
        for (int64_t c = 0; c < n; c++) out[c] = v[d + c];
    }
  }
}

// Scores [n][kPanel] of the keys from position p on that a query must not see become minus infinity; own: of the first.
static void hide(const Attention& call, const LaidOut& laid, float* s, int64_t p, int64_t n, int64_t own) {
  const uint8_t* keep = call.mask ? call.mask + laid.row * call.mask_width : nullptr;
  const bool last = call.causal && p + n - 1 > own, first = call.causal && call.window && p <= own + kPanel - 1 - call.window;
  if (!keep && !last && !first) return;
  I lanes;
  for (int i = 0; i < LANES; i++) lanes[i] = i;
  for (int64_t i = 0; i < n; i++)
    for (int c = 0; c < kParts; c++) {
      float* here = s + i * kPanel + c * LANES;
      const I at = lanes + integers(int32_t(own + c * LANES - p - i));  // of the queries, beside the key's
      V x = load(here);
      if (keep && !keep[p + i]) x = set(kHidden);
      if (last) x = at < integers(0) ? set(kHidden) : x;
      if (first) x = at >= integers(int32_t(call.window)) ? set(kHidden) : x;
      store(here, x);
    }
}

// Scores [n][kPanel], multiplied by log2(e), become weights; sums of `width` floats a query shrink with a new maximum.
static void weigh_panel(float* s, int64_t n, V* tops, V* totals, float* sums, int64_t width) {
  for (int c = 0; c < kParts; c++) {
    float* here = s + c * LANES;
    V top = tops[c];
    for (int64_t i = 0; i < n; i++) top = max(load(here + i * kPanel), top);
    const V shrink = exp2(tops[c] - top);
    V total = totals[c] * shrink;
    for (int64_t i = 0; i < n; i++) {
      const V weight = exp2(load(here + i * kPanel) - top);
      total = total + weight;
      store(here + i * kPanel, weight);
    }
    tops[c] = top;
    totals[c] = total;
    for (int64_t d = 0; d < width; d++) store(sums + d * kPanel + c * LANES, load(sums + d * kPanel + c * LANES) * shrink);
  }
}

// Sums [E][kPanel] of `count` queries, times `by`, as rows of a tensor.
static void write_rows(const Heads& to, int64_t row, int64_t head, int64_t first, int64_t count, int64_t e,
                       const float* sums, const V* by) {
  for (int c = 0; c < kParts; c++)
    for (int64_t d = 0; d < e; d += LANES) {
      V block[LANES];
      for (int64_t i = 0; i < LANES; i++)
        block[i] = d + i < e ? load(sums + (d + i) * kPanel + c * LANES) * by[c] : zero();
      transpose(block);
      for (int64_t i = 0; i < LANES && c * LANES + i < count; i++) {
        float* out = at(to, row, first + c * LANES + i, head) + d;
        if (d + LANES <= e) store(out, block[i]);
        else store_first(out, block[i], e - d);
      }
    }
}

// 1 / totals; 0 of queries that saw no key.
INLINE void reciprocals(const V* totals, V* out) {
  for (int c = 0; c < kParts; c++) out[c] = totals[c] == zero() ? zero() : set(1.f) / totals[c];
}

// out[n][kPanel] = n keys in tiles [E][kTile] times a panel [E][kPanel]
static void multiply_keys(const float* keys, const float* panel, int64_t n, int64_t e, float* out) {
  for (int64_t i = 0; i < n; i += kTile)
    for (int c = 0; c < kPanel; c += kColumns)
      multiply_of(least(kTile, n - i))(keys + i * e, panel + c, e, out + i * kPanel + c, kPanel, false, {keys + (i + kTile) * e, 64});
}

// sums [E][kPanel] += n values, laid out in tiles of their floats, times a panel [n][kPanel]
static void add_values(const LaidOut& laid, const float* values, const float* panel, int64_t n, int64_t e, float* sums) {
  for (int64_t d = 0; d < e; d += laid.height, values += laid.tile_apart)
    for (int c = 0; c < kPanel; c += kColumns)
      multiply_of(least(laid.height, e - d))(values, panel + c, n, sums + d * kPanel + c, kPanel, true,
                                             {values + laid.tile_apart, 64});
}

// Query rows [first, end) of one head, at most kPanel.
static void attend_block(const Attention& call, const LaidOut& laid, int64_t head, int64_t first, int64_t end) {
  const int64_t e = call.head_dim, kv_head = head / (call.heads / call.kv_heads) - laid.first_head;
  const int64_t own = call.totals[laid.row] - call.length + first;  // position of the first query
  float* s = scratch(kAttention3, (kKeys + 2 * e) * kPanel);
  float *panel = s + kKeys * kPanel, *sums = panel + e * kPanel;
  panel_rows([&](long i) { return at(call.q, laid.row, first + i, head); }, end - first, e, call.scale * 1.44269504f, panel);
  fill(sums, e * kPanel, 0.f);
  V tops[kParts], totals[kParts];
  for (int c = 0; c < kParts; c++) tops[c] = set(kLow), totals[c] = zero();

  const int64_t stop = call.causal ? least(laid.end, own + end - first) : laid.end;
  int64_t start = laid.first;
  if (call.causal && call.window) start += most(0, own - call.window + 1 - start) / kTile * kTile;
  for (int64_t p = start; p < stop; p += kKeys) {
    const int64_t n = least(kKeys, stop - p);
    const float* keys = laid.keys + kv_head * laid.keys_apart + (p - laid.first) * e;
    const float* values = laid.values + kv_head * laid.values_apart + (p - laid.first) * kTile;
    multiply_keys(keys, panel, n, e, s);
    if (call.mask || call.causal) hide(call, laid, s, p, n, own);
    weigh_panel(s, n, tops, totals, sums, e);
    add_values(laid, values, s, n, e, sums);
  }
  V by[kParts];
  reciprocals(totals, by);
  write_rows(call.out, laid.row, head, first, end - first, e, sums, by);
}

static void attend_many(const Attention& call) {
  const int64_t e = call.head_dim, group = call.heads / call.kv_heads;
  LaidOut laid;
  for (laid.row = 0; laid.row < call.rows; laid.row++) {
    laid.end = call.totals[laid.row];
    laid.first = call.causal && call.window ? most(0, laid.end - call.length + 1 - call.window) : 0;
    set_sizes(laid, e);
    const int64_t key_tiles = (laid.end - laid.first + kTile - 1) / kTile;
    const int64_t at_once = most(1, least(call.kv_heads, kLaidOut / (laid.keys_apart + laid.values_apart)));
    laid.keys = scratch(kAttention1, at_once * laid.keys_apart);
    laid.values = scratch(kAttention2, at_once * laid.values_apart);
    const int64_t blocks = (call.length + kPanel - 1) / kPanel;
    for (laid.first_head = 0; laid.first_head < call.kv_heads; laid.first_head += at_once) {
      laid.heads = least(at_once, call.kv_heads - laid.first_head);
      const int64_t tasks = laid.heads * group * blocks, together = most(1, tasks / (8 * threads()));
#pragma omp parallel num_threads(threads())
      {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < laid.heads * key_tiles; i++) {
          lay_out_keys(call.keys, laid, e, i / key_tiles, laid.first + i % key_tiles * kTile);
          lay_out_values(call.values, laid, e, i / key_tiles, laid.first + i % key_tiles * kTile);
        }
#pragma omp for schedule(monotonic : dynamic, together)
        for (int64_t i = 0; i < tasks; i++) {
          const int64_t first = (blocks - 1 - i % blocks) * kPanel;  // causal: the longest first
          attend_block(call, laid, laid.first_head * group + i / blocks, first, least(call.length, first + kPanel));
        }
      }
    }
  }
}

}  // namespace attending
}  // namespace ISA
