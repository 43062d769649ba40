// Attention of many queries in bfloat16: scores and weighted values are products of blocks, the softmax is float32.
//
// In: an Attention. Out: floats, or Blocks, a head after the other. Keys and values of a kv head are packed once, as panels
// of 32 keys and of 32 numbers of a value; then 32 queries at a time meet chunks of keys.

namespace ISA {
namespace halved {

using attending::least;
using attending::most;
using attending::Seen;

constexpr long kKeys = 512;  // between two looks at the running maximum

// Packed keys and values of some kv heads of a row.
struct Panels {
  int64_t row, first_head;
  long first, end, panels;  // positions, the first a multiple of 32; panels of keys
  long deep;                // blocks of a head's numbers
  Half *keys, *values;      // per head [panels][deep] and [deep][panels] squares
  Half* keys_of(long head, long panel) const { return keys + (head * panels + panel) * deep * kSquare; }
  Half* values_of(long head, long d, long panel) const { return values + ((head * deep + d) * panels + panel) * kSquare; }
};

// A head's 32 keys and values of one panel; those behind the row's end are zero.
static void pack_panel(const Attention& call, const Panels& to, long head, long panel) {
  const long e = call.head_dim, p = to.first + panel * kSide, here = least(kSide, to.end - p);
  const float *k[kSide], *v[kSide];
  for (long i = 0; i < kSide; i++) {
    k[i] = i < here ? attending::at(call.keys, to.row, to.first_head + head, p + i) : nullptr;
    v[i] = i < here ? attending::at(call.values, to.row, to.first_head + head, p + i) : nullptr;
  }
  for (long d = 0; d < to.deep; d++) {
    const long n = e - d * kSide;
    Half* keys = to.keys_of(head, panel) + d * kSquare;
    for (long half = 0; half < 2; half++) {
      V rows[16];  // of 16 keys 16 pairs of numbers each
      for (long i = 0; i < 16; i++) {
        const float* from = k[16 * half + i];
        rows[i] = from ? (V)halves(from + d * kSide, n) : zero();
      }
      transpose(rows);
      for (long i = 0; i < 16; i++) store((float*)(keys + i * 2 * kSide + half * kSide), rows[i]);
    }
    Half* values = to.values_of(head, d, panel);
    for (long i = 0; i < kSide; i += 2) {
      const __m512i even = v[i] ? halves(v[i] + d * kSide, n) : _mm512_setzero_si512();
      const __m512i odd = v[i + 1] ? halves(v[i + 1] + d * kSide, n) : _mm512_setzero_si512();
      store_pairs(values + i * kSide, even, odd);
    }
  }
}

// 2^x to 2^-13, for a result that is rounded to 2^-9; 0 of what is far below.
INLINE __m512 power_of_two(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, 9);  // x - floor(x)
  __m512 p = _mm512_set1_ps(0.07802428f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.22606727f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69583363f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.99992519f));
  return _mm512_scalef_ps(p, x);
}

// Row r of scores [blocks][32][32] becomes weights in bfloat16; those outside [low, high) or hidden by keep become 0.
// scale: of scores, times log2(e). Returns what the sums made so far are to be multiplied by.
static float weigh_row(float* scores, Half* weights, long r, long blocks, long low, long high, const uint8_t* keep,
                       float scale, Seen& seen) {
  float* s = scores + r * kSide;
  const auto hide = [&](long i) { s[i / kSide * kSquare + i % kSide] = attending::kHidden; };
  for (long i = 0; i < low && i < blocks * kSide; i++) hide(i);
  for (long i = most(high, 0); i < blocks * kSide; i++) hide(i);
  if (keep)
    for (long i = most(low, 0); i < high && i < blocks * kSide; i++)
      if (!keep[i]) hide(i);
  __m512 top = _mm512_set1_ps(attending::kLow), top2 = top;
  for (long b = 0; b < blocks; b++) {
    top = _mm512_max_ps(_mm512_loadu_ps(s + b * kSquare), top);
    top2 = _mm512_max_ps(_mm512_loadu_ps(s + b * kSquare + 16), top2);
  }
  const float here = _mm512_reduce_max_ps(_mm512_max_ps(top, top2)) * scale, now = here > seen.top ? here : seen.top;
  const __m512 by = _mm512_set1_ps(scale), minus = _mm512_set1_ps(-now);
  __m512 total = _mm512_setzero_ps(), total2 = total;
  for (long b = 0; b < blocks; b++) {
    const __m512 low16 = power_of_two(_mm512_fmadd_ps(_mm512_loadu_ps(s + b * kSquare), by, minus));
    const __m512 high16 = power_of_two(_mm512_fmadd_ps(_mm512_loadu_ps(s + b * kSquare + 16), by, minus));
    total = _mm512_add_ps(total, low16);
    total2 = _mm512_add_ps(total2, high16);
    _mm512_store_si512(weights + b * kSquare + r * kSide, halves(low16, high16));
  }
  const float shrink = seen.sum == 0.f ? 1.f : power_of_two(_mm512_set1_ps(seen.top - now))[0];
  seen = {now, seen.sum * shrink + _mm512_reduce_add_ps(_mm512_add_ps(total, total2))};
  return shrink;
}

// Query rows [first, end), at most 32, of one head; blocks: where the results go in place of call.out.
static void attend_block(const Attention& call, const Panels& packed, long head, long first, long end, const Blocks& blocks) {
  const long e = call.head_dim, deep = packed.deep, count = end - first;
  const long kv_head = head / (call.heads / call.kv_heads) - packed.first_head;
  const long before = call.totals[packed.row] - call.length;  // positions before the first query
  const bool half = count <= 16;
  float* s = scratch(kAttention3, kSide * kKeys + kSide * kKeys / 2 + deep * kSquare + deep * kSquare / 2);
  float* o = s + kSide * kKeys;  // [deep][32][32]
  Half *weights = (Half*)(o + deep * kSquare), *q = weights + kSide * kKeys;
  Seen seen[kSide];
  for (long r = 0; r < kSide; r++) seen[r] = {attending::kLow, 0.f};
  for (long r = 0; r < count; r++) take_row(attending::at(call.q, packed.row, first + r, head), e, {q, deep}, r);
  const float scale = call.scale * 1.44269504f;
  const long stop = call.causal ? least(packed.end, before + end) : packed.end;
  long start = packed.first;
  if (call.causal && call.window) start = most(start, before + first - call.window + 1) / kSide * kSide;
  bool more = false;
  for (long p = start; p < stop; p += kKeys, more = true) {
    const long here = blocks_in(least(kKeys, stop - p)), panel = (p - packed.first) / kSide;
    for (long b = 0; b < here; b++)
      multiply(q, packed.keys_of(kv_head, panel + b), deep, s + b * kSquare, false, half);
    for (long r = 0; r < count; r++) {
      const long own = before + first + r, high = call.causal ? own + 1 : packed.end;
      const long low = call.window ? own + 1 - call.window : 0;
      const uint8_t* keep = call.mask ? call.mask + packed.row * call.mask_width + p : nullptr;
      const float shrink = weigh_row(s, weights, r, here, low - p, high - p, keep, scale, seen[r]);
      if (more && shrink != 1.f)
        for (long d = 0; d < deep; d++)
          for (long c = 0; c < kSide; c += 16) {
            float* at = o + d * kSquare + r * kSide + c;
            store(at, load(at) * set(shrink));
          }
    }
    for (long d = 0; d < deep; d++)
      multiply(weights, packed.values_of(kv_head, d, panel), here, o + d * kSquare, more, half);
  }
  for (long r = 0; r < count; r++) {
    const V by = set(seen[r].sum == 0.f ? 0.f : 1.f / seen[r].sum);
    for (long d = 0; d < deep; d++) {
      const float* from = o + d * kSquare + r * kSide;
      const V low = more ? load(from) * by : zero(), high = more ? load(from + 16) * by : zero();
      const long n = e - d * kSide, row = packed.row * call.length + first + r, column = head * e + d * kSide;
      if (blocks.at && e % kSide == 0) {
        _mm512_store_si512(blocks.row(row, column / kSide), halves((__m512)low, (__m512)high));
      } else if (blocks.at) {
        Half both[kSide];
        _mm512_storeu_si512(both, halves((__m512)low, (__m512)high));
        for (long i = 0; i < least(n, kSide); i++) blocks.row(row, (column + i) / kSide)[(column + i) % kSide] = both[i];
      } else {
        float* to = attending::at(call.out, packed.row, first + r, head) + d * kSide;
        n >= 16 ? store(to, low) : store_first(to, low, n);
        if (n > 16) n >= 32 ? store(to + 16, high) : store_first(to + 16, high, n - 16);
      }
    }
  }
}

// blocks: [rows * length, heads * head_dim], in place of call.out; null: none.
static void attend(const Attention& call, const Blocks& blocks) {
  const long group = call.heads / call.kv_heads, width = call.heads * call.head_dim;
  Panels packed;
  packed.deep = blocks_in(call.head_dim);
  if (blocks.at && width % kSide)  // the columns behind the last head
    for (long r = 0; r < call.rows * call.length; r++)
      for (long i = width % kSide; i < kSide; i++) blocks.row(r, width / kSide)[i] = 0;
  for (packed.row = 0; packed.row < call.rows; packed.row++) {
    packed.end = call.totals[packed.row];
    packed.first = 0;
    if (call.causal && call.window) packed.first = most(0, packed.end - call.length + 1 - call.window) / kSide * kSide;
    packed.panels = blocks_in(packed.end - packed.first);
    const long size = packed.panels * packed.deep * kSquare;  // of a head's keys, in Halves
    const long at_once = most(1, least(call.kv_heads, 2 * attending::kLaidOut / (2 * size)));
    packed.keys = (Half*)scratch(kAttention1, at_once * size / 2);
    packed.values = (Half*)scratch(kAttention2, at_once * size / 2);
    const long tasks = blocks_in(call.length);
    for (packed.first_head = 0; packed.first_head < call.kv_heads; packed.first_head += at_once) {
      const long heads = least(at_once, call.kv_heads - packed.first_head);
#pragma omp parallel num_threads(threads())
      {
        Tiles tiles;
#pragma omp for schedule(static)
        for (long i = 0; i < heads * packed.panels; i++) pack_panel(call, packed, i / packed.panels, i % packed.panels);
#pragma omp for schedule(monotonic : dynamic, 1)
        for (long i = 0; i < heads * group * tasks; i++) {
          const long first = (tasks - 1 - i % tasks) * kSide;  // causal: the longest first
          attend_block(call, packed, packed.first_head * group + i / tasks, first, least(call.length, first + kSide), blocks);
        }
      }
    }
  }
}

}  // namespace halved

static void attention_halved(const Attention& call) { halved::attend(call, {}); }

}  // namespace ISA
