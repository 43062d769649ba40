// Products of few rows (decoding), all of them beside each other, so that a weight is read once.
//
// In: a Linear. Out: a thread's part of its result (linear_part), for use within any parallel region, with Tiles.

namespace ISA {

// Few rows of x, and what products with a kind of weight take in their place: made once for all columns.
struct FewRows {
  const float* x;
  long stride, rows;
  bool rounded;                   // to bfloat16, where tiles multiply them
  Kind kind = Kind::kFloat32;     // of the weight that the rest belongs to
  long group = -1;                // as is this
  const float* totals = nullptr;  // [rows][groups]: sums over every group, for offsets
  const Digits* digits = nullptr;
  Parts parts;

  FewRows(const float* first, long apart, long count, bool halved = false) : x(first), stride(apart), rows(count), rounded(halved) {}

  void take(const Weight& w) {
    if (w.kind == kind && w.group == group && !totals == !w.offsets) return;
    kind = w.kind;
    group = w.group;
    totals = w.offsets ? totals_of(w) : nullptr;
    parts = parts_of(w, x, stride, rows, rounded);
    digits = parts.at ? nullptr : digits_of(w, x, stride, rows);
  }

  const float* totals_of(const Weight& w) const {
    const long groups = groups_of(w);
    float* made = scratch(kLinearRows, rows * groups);
    for (long r = 0; r < rows; r++)
      for (long g = 0; g < groups; g++) made[r * groups + g] = total_of(w, x + r * stride, g);
    return made;
  }
};

// out [rows], `block` apart, += x times some columns of W by float arithmetic, without offsets.
static void few_floats(const Weight& w, const FewRows& x, long column, long columns, float* out, float* part, long block) {
  for (long first = 0; first < x.rows; first += kStreamRows, out += kStreamRows * block) {
    const long rows = x.rows - first < kStreamRows ? x.rows - first : kStreamRows;
    const float* here = x.x + first * x.stride;
    const Stream run = stream_of(w.kind, rows);
    if (!w.scales) {
      run(w, column, columns, 0, w.K, here, x.stride, out, block);
      continue;
    }
    for (long k = 0; k < w.K; k += w.group) {
      const long end = k + w.group < w.K ? k + w.group : w.K;
      const float* scale = w.scales + k / w.group * w.N + column;
      for (long r = 0; r < rows; r++)
        for (long c = 0; c < columns; c += LANES) store(part + r * block + c, zero());
      run(w, column, columns, k, end, here, x.stride, part, block);
      for (long c = 0; c < columns; c += LANES) {
        const V times = some(scale + c, columns - c);
        for (long r = 0; r < rows; r++)
          store(out + r * block + c, fma(load(part + r * block + c), times, load(out + r * block + c)));
      }
    }
  }
}

// Whether all of [rows] sums, `block` apart, are finite. What is behind the last column counts too.
INLINE bool finite(const float* sums, long rows, long columns, long block) {
  V none = zero();  // NaN in a lane once an infinity or a NaN was there
  for (long r = 0; r < rows; r++)
    for (long c = 0; c < columns; c += LANES) none = fma(load(sums + r * block + c), zero(), none);
  return sum(none) == 0;
}

// out [rows], `block` apart, = x times some columns of W.
static void few(const Weight& w, FewRows& x, long column, long columns, float* out, float* part, long block) {
  for (long i = 0; i < x.rows * block; i += LANES) store(out + i, zero());
  x.take(w);
  const long done = x.parts.at ? columns : x.digits ? columns / kWide * kWide : 0;
  if (x.parts.at) {
    few_parts(w, x.parts, column, columns, out, block);
    if (!finite(out, x.rows, columns, block)) {  // tiles also multiply what is not finite by zeros: it is in other columns then
      for (long i = 0; i < x.rows * block; i += LANES) store(out + i, zero());
      few_floats(w, x, column, columns, out, part, block);
    }
  } else if (done) few_digits(w, x.digits, x.rows, column, done, out, block);
  if (done < columns) few_floats(w, x, column + done, columns - done, out + done, part, block);
  const long groups = groups_of(w);
  for (long g = 0; w.offsets && g < groups; g++)
    for (long c = 0; c < columns; c += LANES) {
      const V plus = some(w.offsets + g * w.N + column + c, columns - c);
      for (long r = 0; r < x.rows; r++)
        store(out + r * block + c, fma(set(x.totals[r * groups + g]), plus, load(out + r * block + c)));
    }
}

// Of `columns` columns those that `few` takes at a time.
static long block_of(long rows, long columns) {
  const long most = kSums / rows / kWide * kWide;
  return most < columns ? most : (columns + kWide - 1) / kWide * kWide;
}

// Thread `thread` of `count`'s part of a product of few rows. For use within a parallel region; nothing is waited for.
static void linear_part(const Linear& a, int thread, int count) {
  const bool pairs = a.activation == Activation::kSwiglu;
  const long N = a.weight.N, units = (N + kPanel - 1) / kPanel;
  const long first = units * thread / count * kPanel, end = units * (thread + 1) / count * kPanel, last = end < N ? end : N;
  const long block = block_of(a.M, last - first);
  FewRows x(a.x, a.x_stride, a.M, a.rounded);
  float *sums = scratch(kLinearSums, 3 * kSums), *up = sums + kSums, *part = up + kSums;
  for (long column = first; column < last; column += block) {
    const long columns = last - column < block ? last - column : block;
    few(a.weight, x, column, columns, sums, part, block);
    if (pairs) few(a.up, x, column, columns, up, part, block);
    finish(a, sums, up, block, 0, a.M, column, columns);
  }
}

}  // namespace ISA
