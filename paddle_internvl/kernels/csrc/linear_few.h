// Products of few rows (decoding): bound by memory. Every thread streams its columns of the weight once, four rows of W
// at a time (eight of integers), all rows of x beside each other; sums of a block of columns stay in the second-level cache.
// Long pieces of a row, and fetching ahead across rows, keep the memory's own pages open.
//
// In: a Linear. Out: a thread's part of its result (linear_part), for use within any parallel region.

namespace ISA {

constexpr long kFewRows = 8;    // of x, at most
constexpr long kSums = 16384;   // of all rows of x together: 64 KiB
constexpr long kAhead = 12288;  // bytes that a thread fetches ahead

// sums[R], `block` apart, += x[R] times S rows of LANES columns of W, of which `at` is the first; n: columns, if not all.
template <Kind kind, int R, int S, bool all>
INLINE void add(const char* at, long pitch, const float* __restrict x, long x_stride, long n, float* __restrict sums,
                long block, long ahead) {
  V sum[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) sum[r] = load(sums + r * block);
#pragma GCC unroll 8
  for (int s = 0; s < S; s += rows_in_a_byte(kind), at += pitch) {
    prefetch(at + ahead);
    V w, odd;
    if constexpr (kind == Kind::kInt4) weights<all>(at, n, w, odd);
    else w = weights<kind, all>(at, n);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) sum[r] = fma(set(x[r * x_stride + s]), w, sum[r]);
    if constexpr (kind == Kind::kInt4 && S > 1)
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) sum[r] = fma(set(x[r * x_stride + s + 1]), odd, sum[r]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) store(sums + r * block, sum[r]);
}

// The same for the last columns and rows: fewer than LANES, or one step of rows at a time.
template <Kind kind, int R>
static void add_rest(const char* at, long pitch, const float* x, long x_stride, long rows, long columns, float* sums,
                     long block) {
  constexpr int shared = rows_in_a_byte(kind);
  for (long k = 0; k < rows; k += shared, at += pitch)
    for (long c = 0; c < columns; c += LANES) {
      const long n = columns - c < LANES ? columns - c : LANES;
      const char* here = at + row_bytes(kind, c);
      if (k + shared <= rows) add<kind, R, shared, false>(here, pitch, x + k, x_stride, n, sums + c, block, 0);
      else add<kind, R, 1, false>(here, pitch, x + k, x_stride, n, sums + c, block, 0);
    }
}

// sums[R] += x[R] times rows k..end of some columns of W, without scales.
template <Kind kind, int R>
static void stream(const Weight& w, long column, long columns, long k, long end, const float* x, long x_stride,
                   float* sums, long block) {
  constexpr int S = kind == Kind::kInt8 || kind == Kind::kInt4 ? 8 : 4, shared = rows_in_a_byte(kind);
  const long pitch = row_bytes(kind, w.N), whole = columns / LANES * LANES;
  const long ahead = (kAhead / (S / shared * row_bytes(kind, columns)) + 1) * (S / shared) * pitch;
  const char* at = (const char*)w.data + k / shared * pitch + row_bytes(kind, column);
  for (; k + S <= end; k += S, at += S / shared * pitch) {
    for (long c = 0; c < whole; c += LANES)
      add<kind, R, S, true>(at + row_bytes(kind, c), pitch, x + k, x_stride, LANES, sums + c, block, ahead);
    add_rest<kind, R>(at + row_bytes(kind, whole), pitch, x + k, x_stride, S, columns - whole, sums + whole, block);
  }
  add_rest<kind, R>(at, pitch, x + k, x_stride, end - k, columns, sums, block);
}

typedef void (*Stream)(const Weight&, long, long, long, long, const float*, long, float*, long);

template <Kind kind>
static Stream stream_of(long rows) {
  static const Stream table[] = {stream<kind, 1>, stream<kind, 2>, stream<kind, 3>, stream<kind, 4>,
                                 stream<kind, 5>, stream<kind, 6>, stream<kind, 7>, stream<kind, 8>};
  return table[rows - 1];
}
static Stream stream_of(Kind kind, long rows) {
  switch (kind) {
    case Kind::kFloat32: return stream_of<Kind::kFloat32>(rows);
    case Kind::kBFloat16: return stream_of<Kind::kBFloat16>(rows);
    case Kind::kInt8: return stream_of<Kind::kInt8>(rows);
    default: return stream_of<Kind::kInt4>(rows);
  }
}

// out[rows], `block` apart, = x times some columns of W. totals [rows][groups]: sums of x over every group, for offsets.
static void few(const Weight& w, const float* x, long x_stride, long rows, long column, long columns,
                const float* totals, float* out, float* part, long block) {
  const Stream run = stream_of(w.kind, rows);
  for (long i = 0; i < rows * block; i += LANES) store(out + i, zero());
  if (!w.scales) return run(w, column, columns, 0, w.K, x, x_stride, out, block);
  const long groups = groups_of(w);
  for (long g = 0; g < groups; g++) {
    const long k = g * w.group, end = k + w.group < w.K ? k + w.group : w.K;
    const float *scale = w.scales + g * w.N + column, *offset = w.offsets ? w.offsets + g * w.N + column : nullptr;
    for (long i = 0; i < rows * block; i += LANES) store(part + i, zero());
    run(w, column, columns, k, end, x, x_stride, part, block);
    for (long c = 0; c < columns; c += LANES) {
      const V times = some(scale + c, columns - c), plus = offset ? some(offset + c, columns - c) : zero();
      for (long r = 0; r < rows; r++) {
        V sum = fma(load(part + r * block + c), times, load(out + r * block + c));
        if (offset) sum = fma(set(totals[r * groups + g]), plus, sum);
        store(out + r * block + c, sum);
      }
    }
  }
}

// Sums of x over every group of a weight with offsets; null without.
static const float* totals_of(const Weight& w, const float* x, long x_stride, long rows, Slot slot) {
  if (!w.offsets) return nullptr;
  const long groups = groups_of(w);
  float* made = scratch(slot, rows * groups);
  for (long r = 0; r < rows; r++)
    for (long g = 0; g < groups; g++) {
      float total = 0;
      for (long k = g * w.group; k < (g + 1) * w.group && k < w.K; k++) total += x[r * x_stride + k];
      made[r * groups + g] = total;
    }
  return made;
}

// Thread `thread` of `count`'s part of a product of few rows. For use within a parallel region; nothing is waited for.
static void linear_part(const Linear& a, int thread, int count) {
  const bool pairs = a.activation == Activation::kSwiglu;
  const long N = a.weight.N, units = (N + kPanel - 1) / kPanel;
  const long first = units * thread / count * kPanel, end = units * (thread + 1) / count * kPanel, last = end < N ? end : N;
  const long most = kSums / a.M / LANES * LANES, block = most < last - first ? most : (last - first + LANES - 1) / LANES * LANES;
  const float* totals = totals_of(a.weight, a.x, a.x_stride, a.M, kLinearRows);
  const float* more = pairs ? totals_of(a.up, a.x, a.x_stride, a.M, kLinearPanels) : nullptr;
  float *sums = scratch(kLinearSums, 3 * kSums), *up = sums + kSums, *part = up + kSums;
  for (long column = first; column < last; column += block) {
    const long columns = last - column < block ? last - column : block;
    few(a.weight, a.x, a.x_stride, a.M, column, columns, totals, sums, part, block);
    if (pairs) few(a.up, a.x, a.x_stride, a.M, column, columns, more, up, part, block);
    finish(a, sums, up, block, 0, a.M, column, columns);
  }
}

}  // namespace ISA
