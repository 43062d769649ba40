// softmax(scale q k^T) v without the matrix of scores, for two kinds of work:
//   many queries  blocks of query rows against chunks of keys, with a running maximum and sum. Keys are laid out in panels
//                 and values in rows once, so that both products run from registers and the nearest caches.
//   few queries   (decode) every key and value is read once, where it lies, for all heads that share it. Threads share
//                 out heads and runs of positions, whose results are joined at the end.
// In: an Attention. What lies behind a row's end is not read; hidden keys weigh 0; a query that sees no key gets zeros.
// What is not finite stays so.
#include "attention_arguments.h"

namespace ISA {
namespace attending {

constexpr int kGroup = 6;                    // query rows whose products are in registers
constexpr int kWide = LANES == 16 ? 4 : 2;   // vectors of keys or values beside them
constexpr int64_t kChunk = 512;              // scores of a query in memory
constexpr int64_t kStrip = 64;               // keys whose values stay in the first cache
constexpr int64_t kSplit = 256;              // positions of a decode task
constexpr int64_t kFew = 4;                  // up to so many queries of a row are decode work
constexpr int64_t kLaidOut = 4 << 20;        // floats of keys and values laid out at a time, unless one head has more
constexpr float kLow = -3.4028235e38f;       // the running maximum before any key
const float kHidden = -__builtin_inff();

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t rounded_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
INLINE void fill(float* p, int64_t n, float x) {
  for (int64_t i = 0; i < n; i++) p[i] = x;
}
INLINE float* at(const Heads& x, int64_t b, int64_t l, int64_t h) {
  return x.base + b * x.row + l * x.position + h * x.head;
}
INLINE float* at(const Places& x, int64_t b, int64_t h, int64_t p) {
  const int64_t block = x.table ? x.table[b * x.width + p / x.block] : b;
  return x.base + block * x.block_stride + h * x.head_stride + p % x.block * x.position_stride;
}

// o[r] += sum over i of p[r][i] v[i], in C vectors
template <int R, int C>
static void blend_columns(const float* p, const float* v, int64_t apart, int64_t n, float* o, int64_t width) {
  V a[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int j = 0; j < C; j++) a[r][j] = load(o + r * width + j * LANES);
  for (int64_t i = 0; i < n; i++, v += apart) {
    V x[C];
#pragma GCC unroll 8
    for (int j = 0; j < C; j++) x[j] = load(v + j * LANES);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const V weight = set(p[r * kChunk + i]);
#pragma GCC unroll 8
      for (int j = 0; j < C; j++) a[r][j] = fma(weight, x[j], a[r][j]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int j = 0; j < C; j++) store(o + r * width + j * LANES, a[r][j]);
}

// The same over a whole head of `width` floats, a whole number of vectors.
template <int R>
static void blend(const float* p, const float* v, int64_t apart, int64_t n, float* o, int64_t width) {
  int64_t c = 0;
  for (; c + kWide * LANES <= width; c += kWide * LANES) blend_columns<R, kWide>(p, v + c, apart, n, o + c, width);
  if (kWide > 2 && c + 2 * LANES <= width) {
    blend_columns<R, 2>(p, v + c, apart, n, o + c, width);
    c += 2 * LANES;
  }
  if (c < width) blend_columns<R, 1>(p, v + c, apart, n, o + c, width);
}

template <int R>
struct Count {
  static constexpr int value = R;
};

// work(Count<R>, first) for groups of at most kGroup of `rows` rows
template <class Work>
static inline void in_groups(int64_t rows, Work work) {
  int64_t r = 0;
  for (; r + kGroup <= rows; r += kGroup) work(Count<kGroup>(), r);
  if (rows - r == 5) work(Count<5>(), r);
  if (rows - r == 4) work(Count<4>(), r);
  if (rows - r == 3) work(Count<3>(), r);
  if (rows - r == 2) work(Count<2>(), r);
  if (rows - r == 1) work(Count<1>(), r);
}

// What has been seen of one query's keys: the greatest score, and the sum of the weights relative to it.
struct Seen {
  float top, sum;
};

// Scores s[0..n) become weights; those outside [low, high) and those that keep hides become 0. n: whole vectors.
// Returns what the sums made so far are to be multiplied by.
static float weigh(float* s, int64_t n, int64_t low, int64_t high, const uint8_t* keep, Seen& seen) {
  low = least(low, n), high = least(high, n);
  if (low >= high) {
    fill(s, n, 0.f);
    return 1.f;
  }
  fill(s, low, kHidden);
  fill(s + high, n - high, kHidden);
  if (keep)
    for (int64_t i = low; i < high; i++) s[i] = keep[i] ? s[i] : kHidden;
  V top = set(seen.top);
  for (int64_t i = 0; i < n; i += LANES) top = max(load(s + i), top);
  const float now = largest(top);
  const V base = set(now);
  V total = zero();
  for (int64_t i = 0; i < n; i += LANES) {
    const V weight = exp(load(s + i) - base);
    total = total + weight;
    store(s + i, weight);
  }
  const float shrink = exp(set(seen.top - now))[0];
  seen = {now, seen.sum * shrink + sum(total)};
  return shrink;
}

// A finished head: o / sum, of which the first e floats are wanted.
INLINE void finish(const float* o, int64_t e, float total, float* out) {
  const V by = set(total == 0.f ? 0.f : 1.f / total);
  int64_t i = 0;
  for (; i + LANES <= e; i += LANES) store(out + i, load(o + i) * by);
  if (i < e) store_first(out + i, load(o + i) * by, e - i);
}

// Query row times scale, filled up with zeros.
INLINE void take_query(const float* q, int64_t e, int64_t width, float scale, float* to) {
  for (int64_t d = 0; d < e; d++) to[d] = q[d] * scale;
  fill(to + e, width - e, 0.f);
}

}  // namespace attending
}  // namespace ISA

#include "attention_few.h"
#include "attention_many.h"

namespace ISA {

static void attention(const Attention& call) {
  call.length <= attending::kFew ? attending::attend_few(call) : attending::attend_many(call);
}

}  // namespace ISA
