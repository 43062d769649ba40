// Products of few rows (decoding): bound by memory. Every thread streams a run of panels once, all rows beside each other.
//
// In: a Linear. Out: its result, or a thread's part of it (linear_part), for use within another kernel's parallel region.

namespace ISA {

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

}  // namespace ISA
