// Norms, rotary embedding, activations. Each twice: for some rows, within a parallel region; and for all of them.
#include "pointwise_arguments.h"

namespace ISA {

INLINE V load_upto(const float* p, int64_t n) { return n >= LANES ? load(p) : load_first(p, n); }
INLINE void store_upto(float* p, V v, int64_t n) {
  if (n >= LANES) store(p, v);
  else store_first(p, v, n);
}

// Rows [first, end).
static void norm_rows(const Norm& a, int64_t first, int64_t end) {
  const int64_t w = a.width;
  for (int64_t r = first; r < end; r++) {
    const float* x = a.x + r * a.x_apart;
    float* out = a.out + r * a.out_apart;
    if (a.add) {
      float* sum = a.sum + r * w;
      const float* add = a.add + r * w;
      for (int64_t i = 0; i < w; i += LANES) store_upto(sum + i, load_upto(x + i, w - i) + load_upto(add + i, w - i), w - i);
      x = sum;
    }
    float mean = 0;
    if (a.centred) {
      V total = zero();
      for (int64_t i = 0; i < w; i += LANES) total = total + load_upto(x + i, w - i);
      mean = sum(total) / w;
    }
    const V centre = set(mean);
    V squares = zero();
    int64_t i = 0;
    for (; i + LANES <= w; i += LANES) {
      const V d = load(x + i) - centre;
      squares = fma(d, d, squares);
    }
    float rest = 0;
    for (; i < w; i++) rest += (x[i] - mean) * (x[i] - mean);
    const V by = set(1.f / std::sqrt((sum(squares) + rest) / w + a.eps));
    for (i = 0; i < w; i += LANES) {
      V y = (load_upto(x + i, w - i) - centre) * by * load_upto(a.weight + i, w - i);
      if (a.bias) y = y + load_upto(a.bias + i, w - i);
      store_upto(out + i, y, w - i);
    }
  }
}

static void norm(const Norm& a) {
#pragma omp parallel for schedule(static) num_threads(threads()) if (a.rows > 1)
  for (int64_t r = 0; r < a.rows; r++) norm_rows(a, r, r + 1);
}

// One head: to = x turned by a row of the tables; `to` may be x.
INLINE void turn_head(const float* x, const float* cosines, const float* sines, int64_t e, float* to) {
  const int64_t half = e / 2;
  for (int64_t d = 0; d < half; d += LANES) {
    const int64_t n = half - d;
    const V low = load_upto(x + d, n), high = load_upto(x + half + d, n);
    store_upto(to + d, low * load_upto(cosines + d, n) - high * load_upto(sines + d, n), n);
    store_upto(to + half + d, high * load_upto(cosines + half + d, n) + low * load_upto(sines + half + d, n), n);
  }
}

static void turn_rows(const Turn& a, int64_t first, int64_t end) {
  for (int64_t r = first; r < end; r++)
    for (int64_t h = 0; h < a.heads; h++) {
      const int64_t at = h * a.head_dim, table = r * a.head_dim;
      turn_head(a.x + r * a.x_apart + at, a.cosines + table, a.sines + table, a.head_dim, a.out + r * a.out_apart + at);
    }
}

static void turn(const Turn& a) {
#pragma omp parallel for schedule(static) num_threads(threads()) if (a.rows > 1)
  for (int64_t r = 0; r < a.rows; r++) turn_rows(a, r, r + 1);
}

// Elements [first, end), the first a multiple of the width where there is a scale.
static void elements_part(const Elements& a, int64_t first, int64_t end) {
  for (int64_t i = first, column = 0; i < end; column = column + LANES < a.width ? column + LANES : 0) {
    int64_t n = end - i;
    if (a.scale && a.width - column < n) n = a.width - column;
    if (n > LANES) n = LANES;
    const V x = load_upto(a.x + i, n);
    V y = zero();
    if (a.what == Pointwise::kGelu) y = gelu(x);
    if (a.what == Pointwise::kSwiglu) y = silu(x) * load_upto(a.y + i, n);
    if (a.what == Pointwise::kScaledSum) y = fma(load_upto(a.y + i, n), load_upto(a.scale + column, n), x);
    store_upto(a.out + i, y, n);
    i += n;
  }
}

static void elements(const Elements& a) {
  const int64_t piece = a.scale ? a.width * ((4096 + a.width - 1) / a.width) : 4096;
#pragma omp parallel for schedule(static) num_threads(threads()) if (a.count > 2 * piece)
  for (int64_t i = 0; i < (a.count + piece - 1) / piece; i++)
    elements_part(a, i * piece, (i + 1) * piece < a.count ? (i + 1) * piece : a.count);
}

}  // namespace ISA
