// Whole layers in bfloat16: see layers.h, whose layers these are, and layer_arguments.h.
//
// What goes from one product to the next are Blocks; the residual stream, norms, queries before and keys after the rotary
// embedding, and the KV cache are float32. Rows are worked on in strips, so that memory stays bounded.

namespace ISA {
namespace halved {

constexpr int64_t kStrip = 2048;  // rows whose activations are kept at a time

static Product to_floats(const Dense& dense, const Blocks& x, int64_t rows, float* out, int64_t out_stride) {
  return {layering::product(dense, nullptr, rows, out, out_stride), x};
}

static Product added(const Dense& dense, const Blocks& x, int64_t rows, float* out, const float* residual,
                     const float* scale) {
  return {layering::added(dense, nullptr, rows, out, residual, scale), x};
}

static Product swiglu(const DecoderLayer& a, const Blocks& x, int64_t rows, const Blocks& out) {
  return {layering::swiglu(a, nullptr, rows, nullptr), x, out};
}

// Rows [first, end) of x [rows, width], normed, into blocks.
static void norm_part(const float* x, const float* weight, const float* bias, int64_t first, int64_t end, int64_t width,
                      float eps, bool centred, const Blocks& out) {
  float* row = scratch(kLinearSums, width);
  for (int64_t r = first; r < end; r++) {
    norm_rows(layering::norm_of(x + r * width, weight, bias, row, 1, width, eps, centred), 0, 1);
    take_row(row, width, out, r);
  }
}

static void norm_all(const float* x, const float* weight, const float* bias, int64_t rows, int64_t width, float eps,
                     bool centred, const Blocks& out) {
#pragma omp parallel for schedule(static) num_threads(threads())
  for (int64_t r = 0; r < rows; r += kSide)
    norm_part(x, weight, bias, r, r + kSide < rows ? r + kSide : rows, width, eps, centred, out);
}

static void decode(const DecoderLayer& a, const DecoderCall& call) {
  const int64_t m = call.rows * call.length, d = a.width, wide = a.heads * a.head_dim;
  const layering::Qkv at_row = layering::qkv_of(a);
  float* qkv = scratch(kLayer1, m * at_row.row);
  float* attended = scratch(kLayer2, m * wide);
  const Blocks gate = blocks_of(kLayer3, m, a.features);
  const Attention attention = layering::attention_of(a, call, qkv, at_row.row, call.length, attended);
  const attending::FewPlan plan = attending::plan_few(attention);
#pragma omp parallel num_threads(threads())
  {
    Tiles tiles;
    const int thread = omp_get_thread_num(), count = omp_get_num_threads();
    const Blocks normed = blocks_of(kLayer4, m, d);  // of each thread: made faster than waited for
    const Blocks taken = blocks_of(kLinearRows, m, wide);
    norm_part(call.x, a.norm1, nullptr, 0, m, d, a.eps1, false, normed);
    few_part(to_floats(a.q, normed, m, qkv, at_row.row), thread, count);
    few_part(to_floats(a.k, normed, m, qkv + at_row.k, at_row.row), thread, count);
    few_part(to_floats(a.v, normed, m, qkv + at_row.v, at_row.row), thread, count);
#pragma omp barrier
#pragma omp for schedule(static)
    for (int64_t i = 0; i < m; i++) {
      float* at = qkv + i * at_row.row;
      layering::turn_queries(a, call, at, i);
      layering::place(a, call, at + at_row.k, at + at_row.v, i);
    }
    attending::attend_few_part(attention, plan);
    for (int64_t r = 0; r < m; r++) take_row(attended + r * wide, wide, taken, r);
    few_part(added(a.o, taken, m, call.out, call.x, nullptr), thread, count);
#pragma omp barrier
    norm_part(call.out, a.norm2, nullptr, 0, m, d, a.eps2, false, normed);
    few_part(swiglu(a, normed, m, gate), thread, count);
#pragma omp barrier
    few_part(added(a.down, gate, m, call.out, call.out, nullptr), thread, count);
  }
}

// x + attention's share and then the MLP's, of n rows: x and out [n, D], attended [n, H * E].
static void add_shares(const DecoderLayer& a, const float* x, const Blocks& attended, float* out, int64_t n) {
  const int64_t d = a.width, strip = n < kStrip ? n : kStrip;
  const Blocks normed = blocks_of(kLayer4, strip, d), gate = blocks_of(kLayer3, strip, a.features);
  for (int64_t first = 0; first < n; first += kStrip) {
    const int64_t rows = n - first < kStrip ? n - first : kStrip;
    float* to = out + first * d;
    const Blocks here = {attended.block(first / kSide, 0), attended.depth};
    multiply_all(added(a.o, here, rows, to, x + first * d, nullptr));
    norm_all(to, a.norm2, nullptr, rows, d, a.eps2, false, normed);
    multiply_all(swiglu(a, normed, rows, gate));
    multiply_all(added(a.down, gate, rows, to, to, nullptr));
  }
}

// The queries, keys and values of all rows; where `queries` is false, keys and values alone.
static void project(const DecoderLayer& a, const DecoderCall& call, float* qkv, bool queries) {
  const int64_t m = call.rows * call.length, d = a.width;
  const layering::Qkv at_row = layering::qkv_of(a);
  const Blocks normed = blocks_of(kLayer4, m < kStrip ? m : kStrip, d);
  for (int64_t first = 0; first < m; first += kStrip) {
    const int64_t n = m - first < kStrip ? m - first : kStrip;
    float* to = qkv + first * at_row.row;
    norm_all(call.x + first * d, a.norm1, nullptr, n, d, a.eps1, false, normed);
    if (queries) multiply_all(to_floats(a.q, normed, n, to, at_row.row));
    multiply_all(to_floats(a.k, normed, n, to + at_row.k, at_row.row));
    multiply_all(to_floats(a.v, normed, n, to + at_row.v, at_row.row));
  }
#pragma omp parallel for schedule(static) num_threads(threads())
  for (int64_t i = 0; i < m; i++) {
    float* row = qkv + i * at_row.row;
    if (queries) layering::turn_queries(a, call, row, i);
    layering::place(a, call, row + at_row.k, row + at_row.v, i);
  }
}

static void prefill(const DecoderLayer& a, const DecoderCall& call) {
  const int64_t m = call.rows * call.length;
  const layering::Qkv at_row = layering::qkv_of(a);
  float* qkv = scratch(kLayer1, m * at_row.row);
  const Blocks attended = blocks_of(kLayer2, m, a.heads * a.head_dim);
  project(a, call, qkv, true);
  attend(layering::attention_of(a, call, qkv, at_row.row, call.length, nullptr), attended);
  add_shares(a, call.x, attended, call.out, m);
}

// The same where only each row's last position goes on: of the others there are keys and values alone.
static void prefill_last(const DecoderLayer& a, const DecoderCall& call) {
  const int64_t d = a.width, wide = a.heads * a.head_dim, b = call.rows;
  float* qkv = scratch(kLayer1, b * call.length * layering::qkv_of(a).row);
  project(a, call, qkv, false);
  float* last = scratch(kLayer2, b * (d + 2 * wide));
  float *q = last + b * d, *attended = q + b * wide;
  for (int64_t i = 0; i < b; i++)
    __builtin_memcpy(last + i * d, call.x + ((i + 1) * call.length - 1) * d, d * sizeof(float));
  const Blocks normed = blocks_of(kLayer4, b, d);
  norm_all(last, a.norm1, nullptr, b, d, a.eps1, false, normed);
  multiply_all(to_floats(a.q, normed, b, q, wide));
  for (int64_t i = 0; i < b; i++) layering::turn_queries(a, call, q + i * wide, (i + 1) * call.length - 1);
  attending::attend_few(layering::attention_of(a, call, q, wide, 1, attended));
  const Blocks taken = blocks_of(kLinearRows, b, wide);
  for (int64_t r = 0; r < b; r++) take_row(attended + r * wide, wide, taken, r);
  add_shares(a, last, taken, call.out, b);
}

static void see(const VisionLayer& a, const VisionCall& call) {
  const int64_t c = a.width, most = kStrip / call.length > 1 ? kStrip / call.length : 1;
  const int64_t strip = (most < call.tiles ? most : call.tiles) * call.length;
  float* qkv = scratch(kLayer1, strip * 3 * c);
  const Blocks normed = blocks_of(kLayer4, strip, c), attended = blocks_of(kLayer2, strip, c);
  const Blocks inner = blocks_of(kLayer3, strip, a.features);
  int64_t totals[kStrip];
  for (int64_t& total : totals) total = call.length;
  for (int64_t tile = 0; tile < call.tiles; tile += most) {
    const int64_t tiles = call.tiles - tile < most ? call.tiles - tile : most, n = tiles * call.length;
    const float* x = call.x + tile * call.length * c;
    float* out = call.out + tile * call.length * c;
    norm_all(x, a.norm1, a.norm1_bias, n, c, a.eps, a.centred, normed);
    multiply_all(to_floats(a.qkv, normed, n, qkv, 3 * c));
    layering::norm_queries_and_keys(a, qkv, n);
    attend(layering::attention_of(a, qkv, tiles, call.length, totals, false), attended);
    multiply_all(added(a.proj, attended, n, out, x, a.scale1));
    norm_all(out, a.norm2, a.norm2_bias, n, c, a.eps, a.centred, normed);
    Product widened = {layering::product(a.fc1, nullptr, n, nullptr, 0), normed, inner};
    widened.activation = Activation::kGelu;
    multiply_all(widened);
    multiply_all(added(a.fc2, inner, n, out, out, a.scale2));
  }
}

static void project_patches(const Projector& a, const ProjectorCall& call) {
  const int64_t k = a.fc1.weight.K, d = a.fc2.weight.N, grid = call.side / a.merge, all = call.tiles * grid * grid;
  const int64_t strip = all < kStrip ? all : kStrip;
  const Blocks normed = blocks_of(kLayer4, strip, k), inner = blocks_of(kLayer3, strip, a.fc1.weight.N);
  for (int64_t first = 0; first < all; first += kStrip) {
    const int64_t n = all - first < kStrip ? all - first : kStrip;
#pragma omp parallel for schedule(static) num_threads(threads())
    for (int64_t i = 0; i < n; i++) {
      float *patches = scratch(kLayer1, 2 * k), *row = patches + k;
      layering::take_patches(a, call, first + i, patches);
      norm_rows(layering::norm_of(patches, a.norm, a.norm_bias, row, 1, k, a.eps, true), 0, 1);
      take_row(row, k, normed, i);
    }
    Product widened = {layering::product(a.fc1, nullptr, n, nullptr, 0), normed, inner};
    widened.activation = Activation::kGelu;
    multiply_all(widened);
    multiply_all(to_floats(a.fc2, inner, n, call.out + first * d, d));
  }
}

}  // namespace halved

static void decoder_layer_halved(const DecoderLayer& a, const DecoderCall& call) {
  const int64_t m = call.rows * call.length;
  if (a.sparse.count || goes_few(a.q.weight, m)) return kernels().decoder_layer(a, call);
  if (call.length <= attending::kFew && m <= halved::kFewRows && (!call.last_only || call.length == 1))
    return halved::decode(a, call);
  if (a.q.weight.int8_activations) return kernels().decoder_layer(a, call);
  call.last_only ? halved::prefill_last(a, call) : halved::prefill(a, call);
}

static void vision_layer_halved(const VisionLayer& a, const VisionCall& call) {
  a.qkv.weight.int8_activations ? kernels().vision_layer(a, call) : halved::see(a, call);
}

static void projector_halved(const Projector& a, const ProjectorCall& call) { halved::project_patches(a, call); }

}  // namespace ISA
