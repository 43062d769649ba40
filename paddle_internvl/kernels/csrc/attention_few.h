// Attention of one query, or a few: decode steps. See attention.h.

namespace ISA {
namespace attending {

// a and b folded in half: of each run of 2 * HALF numbers the first half holds sums of a's, the second of b's.
template <int HALF>
INLINE V folded(V a, V b) {
  I low, high;
#pragma GCC unroll 16
  for (int i = 0; i < LANES; i++) {
    const int inside = i % (2 * HALF), run = i - inside;
    low[i] = inside < HALF ? run + inside : LANES + run + inside - HALF;
    high[i] = low[i] + HALF;
  }
  return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
}

// The sums of LANES vectors, side by side.
template <int HALF = LANES / 2>
INLINE V sums(V* v) {
#pragma GCC unroll 8
  for (int i = 0; i < HALF; i++) v[i] = folded<HALF>(v[i], v[i + HALF]);
  if constexpr (HALF > 1) return sums<HALF / 2>(v);
  return v[0];
}

// s[i] = q . key i, for n keys `apart` floats apart; width: whole vectors. Writes up to LANES - 1 floats more.
static void score_keys(const float* q, const float* keys, int64_t apart, int64_t n, int64_t width, float* s) {
  for (int64_t first = 0; first < n; first += LANES) {
    const float* k[LANES];
    for (int i = 0; i < LANES; i++) k[i] = keys + least(first + i, n - 1) * apart;
    V a[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) a[i] = zero();
    for (int64_t d = 0; d < width; d += LANES) {
      const V x = load(q + d);
#pragma GCC unroll 16
      for (int i = 0; i < LANES; i++) a[i] = fma(x, load(k[i] + d), a[i]);
    }
    store(s + first, sums(a));
  }
}

// n keys or values from position p on, as rows of whole vectors: where they lie, or copied. Returns how many of them.
static int64_t rows_of(const Places& from, int64_t b, int64_t h, int64_t p, int64_t n, int64_t e, float* copy,
                       const float*& rows, int64_t& apart) {
  const int64_t run = least(least(n, from.block - p % from.block), kStrip);
  rows = at(from, b, h, p);
  apart = from.position_stride;
  if (e % LANES) {
    const int64_t width = rounded_up(e, LANES);
    for (int64_t i = 0; i < run; i++) take_query(rows + i * apart, e, width, 1.f, copy + i * width);
    rows = copy;
    apart = width;
  }
  return run;
}

// Asks for n keys or values from position p on, which will be read soon.
INLINE void fetch(const Places& from, int64_t b, int64_t h, int64_t p, int64_t n, int64_t e) {
  for (int64_t i = 0; i < n;) {
    const int64_t run = least(n - i, from.block - (p + i) % from.block);
    const float* x = at(from, b, h, p + i);
    for (int64_t r = 0; r < run; r++, x += from.position_stride)
      for (int64_t d = 0; d < e; d += 64 / sizeof(float)) prefetch(x + d);
    i += run;
  }
}

// What one query of one kv head sees.
struct Sight {
  int64_t row, query, kv_head, low, high;
};

INLINE Sight sight_of(const Attention& call, int64_t i) {
  Sight sight;
  sight.kv_head = i % call.kv_heads;
  sight.query = i / call.kv_heads % call.length;
  sight.row = i / call.kv_heads / call.length;
  const int64_t total = call.totals[sight.row], end = total - call.length + sight.query + 1;
  sight.high = call.causal ? end : total;
  sight.low = call.causal && call.window ? most(0, end - call.window) : 0;
  return sight;
}

// Positions [first, end) of a sight for all heads that share the kv head: `seen` and `o` [heads][width] of each.
static void attend_run(const Attention& call, const Sight& sight, int64_t first, int64_t end, Seen* seen, float* o) {
  const int64_t e = call.head_dim, width = rounded_up(e, LANES), group = call.heads / call.kv_heads, n = end - first;
  float* s = scratch(kAttention3, group * (kChunk + width) + kStrip * width);
  float *q = s + group * kChunk, *copy = q + group * width;
  const float* rows;
  int64_t apart;
  for (int64_t g = 0; g < group; g++) {
    take_query(at(call.q, sight.row, sight.query, sight.kv_head * group + g), e, width, call.scale, q + g * width);
    seen[g] = {kLow, 0.f};
  }
  for (int64_t i = 0; i < n;) {
    const int64_t run = rows_of(call.keys, sight.row, sight.kv_head, first + i, n - i, e, copy, rows, apart);
    fetch(call.keys, sight.row, sight.kv_head, first + i + run, least(run, n - i - run), e);
    fetch(call.values, sight.row, sight.kv_head, first + i, run, e);
    for (int64_t g = 0; g < group; g++) score_keys(q + g * width, rows, apart, run, width, s + g * kChunk + i);
    i += run;
  }
  const uint8_t* keep = call.mask ? call.mask + sight.row * call.mask_width + first : nullptr;
  for (int64_t g = 0; g < group; g++) weigh(s + g * kChunk, rounded_up(n, LANES), 0, n, keep, seen[g]);
  fill(o, group * width, 0.f);
  for (int64_t i = 0; i < n;) {
    const int64_t run = rows_of(call.values, sight.row, sight.kv_head, first + i, n - i, e, copy, rows, apart);
    in_groups(group, [&](auto size, int64_t g) {
      blend<decltype(size)::value>(s + g * kChunk + i, rows, apart, run, o + g * width, width);
    });
    i += run;
  }
}

// The results of a head's runs become one.
static void join_runs(const Seen* seen, const float* o, int64_t runs, int64_t seen_apart, int64_t o_apart, int64_t e,
                      float* sum, float* out) {
  const int64_t width = rounded_up(e, LANES);
  float top = kLow, total = 0.f;
  for (int64_t i = 0; i < runs; i++) top = seen[i * seen_apart].top > top ? seen[i * seen_apart].top : top;
  fill(sum, width, 0.f);
  for (int64_t i = 0; i < runs; i++) {
    const V by = exp(set(seen[i * seen_apart].top - top));
    total += seen[i * seen_apart].sum * by[0];
    for (int64_t d = 0; d < width; d += LANES) store(sum + d, fma(by, load(o + i * o_apart + d), load(sum + d)));
  }
  finish(sum, e, total, out);
}

// How a call of few queries is shared out, and memory for the results of runs of positions.
struct FewPlan {
  int64_t sights, runs;
  float* o;
  Seen* seen;
};

static FewPlan plan_few(const Attention& call) {
  const int64_t width = rounded_up(call.head_dim, LANES), group = call.heads / call.kv_heads;
  FewPlan plan = {call.rows * call.length * call.kv_heads, 1, nullptr, nullptr};
  for (int64_t i = 0; i < plan.sights; i += call.kv_heads) {
    const Sight sight = sight_of(call, i);
    plan.runs = most(plan.runs, (sight.high - sight.low + kSplit - 1) / kSplit);
  }
  const int64_t results = plan.sights * plan.runs * group;
  plan.o = scratch(kAttention1, results * width);
  plan.seen = reinterpret_cast<Seen*>(scratch(kAttention2, results * 2));
  return plan;
}

// For use within a parallel region, by all of its threads; waits for the end.
static void attend_few_part(const Attention& call, const FewPlan& plan) {
  const int64_t e = call.head_dim, width = rounded_up(e, LANES), group = call.heads / call.kv_heads;
#pragma omp for schedule(monotonic : dynamic, 1)
  for (int64_t i = 0; i < plan.sights * plan.runs; i++) {
    const Sight sight = sight_of(call, i / plan.runs);
    const int64_t first = sight.low + i % plan.runs * kSplit, end = least(first + kSplit, sight.high);
    if (first < end) attend_run(call, sight, first, end, plan.seen + i * group, plan.o + i * group * width);
  }
#pragma omp for schedule(static)
  for (int64_t i = 0; i < plan.sights * group; i++) {
    const Sight sight = sight_of(call, i / group);
    const int64_t used = (sight.high - sight.low + kSplit - 1) / kSplit;
    const int64_t own = i / group * plan.runs * group + i % group;  // the first of its results
    float* out = at(call.out, sight.row, sight.query, sight.kv_head * group + i % group);
    join_runs(plan.seen + own, plan.o + own * width, used, group, group * width, e, scratch(kAttention3, width), out);
  }
}

static void attend_few(const Attention& call) {
  const FewPlan plan = plan_few(call);
#pragma omp parallel num_threads(threads())
  attend_few_part(call, plan);
}

}  // namespace attending
}  // namespace ISA
