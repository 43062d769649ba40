// Products of few rows (decoding): bound by memory. Every thread streams its columns of the weight once, eight rows of W
// at a time, all rows of x beside each other; sums of a block of columns stay in the second-level cache.
// Long pieces of a row, and fetching ahead across rows, keep the memory's own pages open.
//
// In: rows of x and of W. Out: they are added to sums (stream).

namespace ISA {

constexpr long kStreamRows = 8; // of x, at most
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
  constexpr int S = 8, shared = rows_in_a_byte(kind);
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

}  // namespace ISA
