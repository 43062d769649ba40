// Attention of many queries: prompts, and the patches of a picture. See attention.h.

namespace ISA {
namespace attending {

// Keys and values of some kv heads of a row, laid out for the products.
struct LaidOut {
  int64_t row, first_head, heads;  // whose
  int64_t first, end;              // positions, the first a multiple of kPanel
  int64_t width;                   // floats of a value: E, up to whole vectors
  float *keys, *values;            // per head panels [E][kPanel], and rows [width]
  int64_t keys_apart, values_apart;
};

// Lay out the positions [p, p + kPanel) of a head; those behind the row's end are zero.
static void lay_out(const Attention& call, const LaidOut& to, int64_t head, int64_t p) {
  const int64_t e = call.head_dim, here = least(kPanel, to.end - p);
  float* keys = to.keys + head * to.keys_apart + (p - to.first) * e;
  float* values = to.values + head * to.values_apart + (p - to.first) * to.width;
  for (int64_t i = 0; i < here; i++) {
    const float* k = at(call.keys, to.row, to.first_head + head, p + i);
    for (int64_t d = 0; d < e; d++) keys[d * kPanel + i] = k[d];
    const float* v = at(call.values, to.row, to.first_head + head, p + i);
    for (int64_t d = 0; d < e; d++) values[i * to.width + d] = v[d];
    fill(values + i * to.width + e, to.width - e, 0.f);
  }
  if (here < kPanel) {
    for (int64_t d = 0; d < e; d++) fill(keys + d * kPanel + here, kPanel - here, 0.f);
    fill(values + here * to.width, (kPanel - here) * to.width, 0.f);
  }
}

// Query rows [first, end) of one head.
static void attend_block(const Attention& call, const LaidOut& laid, int64_t head, int64_t first, int64_t end) {
  const int64_t e = call.head_dim, width = laid.width, count = end - first;
  const int64_t kv_head = head / (call.heads / call.kv_heads) - laid.first_head;
  const int64_t before = call.totals[laid.row] - call.length;  // positions before the first query
  float* s = scratch(kAttention3, kQueries * (kChunk + e + width));
  float *q = s + kQueries * kChunk, *o = q + kQueries * e;
  Seen seen[kQueries];
  for (int64_t r = 0; r < count; r++) {
    take_query(at(call.q, laid.row, first + r, head), e, e, call.scale, q + r * e);
    seen[r] = {kLow, 0.f};
  }
  fill(o, count * width, 0.f);

  const int64_t stop = call.causal ? least(laid.end, before + end) : laid.end;
  int64_t start = laid.first;
  if (call.causal && call.window) start = most(start, before + first - call.window + 1) / kPanel * kPanel;
  for (int64_t p = start; p < stop; p += kChunk) {
    const int64_t here = least(kChunk, rounded_up(stop - p, kPanel));
    const float* keys = laid.keys + kv_head * laid.keys_apart + (p - laid.first) * e;
    const float* values = laid.values + kv_head * laid.values_apart + (p - laid.first) * width;
    for (int64_t i = 0; i < here; i += kPanel)
      in_groups(count, [&](auto rows, int64_t r) {
        score<decltype(rows)::value>(q + r * e, e, keys + i * e, s + r * kChunk + i);
      });
    for (int64_t r = 0; r < count; r++) {
      const int64_t own = before + first + r;
      const int64_t high = call.causal ? own + 1 : laid.end, low = call.window ? own + 1 - call.window : 0;
      const uint8_t* keep = call.mask ? call.mask + laid.row * call.mask_width + p : nullptr;
      const float shrink = weigh(s + r * kChunk, here, most(low - p, 0), most(high - p, 0), keep, seen[r]);
      if (shrink != 1.f) multiply(o + r * width, width, shrink);
    }
    for (int64_t i = 0; i < here; i += kStrip)
      in_groups(count, [&](auto rows, int64_t r) {
        blend<decltype(rows)::value>(s + r * kChunk + i, values + i * width, width, least(kStrip, here - i), o + r * width,
                                     width);
      });
  }
  for (int64_t r = 0; r < count; r++) finish(o + r * width, e, seen[r].sum, at(call.out, laid.row, first + r, head));
}

static void attend_many(const Attention& call) {
  const int64_t e = call.head_dim, group = call.heads / call.kv_heads;
  LaidOut laid;
  laid.width = rounded_up(e, LANES);
  for (laid.row = 0; laid.row < call.rows; laid.row++) {
    laid.end = call.totals[laid.row];
    laid.first = 0;
    if (call.causal && call.window) laid.first = most(0, laid.end - call.length + 1 - call.window) / kPanel * kPanel;
    const int64_t panels = (laid.end - laid.first + kPanel - 1) / kPanel;
    laid.keys_apart = panels * kPanel * e;
    laid.values_apart = panels * kPanel * laid.width;
    const int64_t at_once = most(1, least(call.kv_heads, kLaidOut / (laid.keys_apart + laid.values_apart)));
    laid.keys = scratch(kAttention1, at_once * laid.keys_apart);
    laid.values = scratch(kAttention2, at_once * laid.values_apart);
    const int64_t blocks = (call.length + kQueries - 1) / kQueries;
    for (laid.first_head = 0; laid.first_head < call.kv_heads; laid.first_head += at_once) {
      laid.heads = least(at_once, call.kv_heads - laid.first_head);
#pragma omp parallel num_threads(threads())
      {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < laid.heads * panels; i++)
          lay_out(call, laid, i / panels, laid.first + i % panels * kPanel);
#pragma omp for schedule(monotonic : dynamic, 1)
        for (int64_t i = 0; i < laid.heads * group * blocks; i++) {
          const int64_t first = (blocks - 1 - i % blocks) * kQueries;  // causal: the longest first
          attend_block(call, laid, laid.first_head * group + i / blocks, first, least(call.length, first + kQueries));
        }
      }
    }
  }
}

}  // namespace attending
}  // namespace ISA
