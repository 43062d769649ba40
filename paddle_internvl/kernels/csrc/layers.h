// Whole layers of the decoder: one call, in which no operation is left to Python. See layer_arguments.h.
//
// Many rows are worked on in strips, so that what lies between two products stays in a bounded piece of memory. Few rows
// (decoding) run in one parallel region, since starting threads would cost as much as some of the products.
#include "bfloat16.h"
#include "layer_arguments.h"

namespace ISA {
namespace layering {

constexpr int64_t kStrip = 1024;  // rows whose activations are kept at a time

static Linear product(const Dense& dense, const float* x, int64_t rows, float* out, int64_t out_apart) {
  Linear a;
  a.weight = dense.weight;
  a.bias = dense.bias;
  a.x = x;
  a.x_stride = dense.weight.K;
  a.M = rows;
  a.out = out;
  a.out_stride = out_apart;
  return a;
}

// out = residual + scale * (x W + bias), rows side by side.
static Linear added(const Dense& dense, const float* x, int64_t rows, float* out, const float* residual,
                    const float* scale) {
  Linear a = product(dense, x, rows, out, dense.weight.N);
  a.residual = residual;
  a.layer_scale = scale;
  return a;
}

static Norm norm_of(const float* x, const float* weight, const float* bias, float* out, int64_t rows, int64_t width,
                    float eps, bool centred) {
  Norm a;
  a.x = x;
  a.weight = weight;
  a.bias = bias;
  a.out = out;
  a.rows = rows;
  a.width = a.x_apart = a.out_apart = width;
  a.eps = eps;
  a.centred = centred;
  return a;
}

// Where the parts of a row of q, k and v begin; the row's length.
struct Qkv {
  int64_t k, v, row;
};
static Qkv qkv_of(const DecoderLayer& a) {
  const int64_t q = a.heads * a.head_dim, k = a.kv_heads * a.head_dim;
  return {q, q + k, q + 2 * k};
}

// RMSNorm of each of the heads [heads, E]; a null weight: none.
static void norm_heads(const DecoderLayer& a, const float* weight, float* x, int64_t heads) {
  if (weight) norm_rows(norm_of(x, weight, nullptr, x, heads, a.head_dim, a.eps1, false), 0, heads);
}

// Norms queries [H, E] and turns them by row i of the tables.
static void turn_queries(const DecoderLayer& a, const DecoderCall& call, float* q, int64_t i) {
  const int64_t e = a.head_dim;
  norm_heads(a, a.q_norm, q, a.heads);
  for (int64_t h = 0; h < a.heads; h++) turn_head(q + h * e, call.cosines + i * e, call.sines + i * e, e, q + h * e);
}

// Norms and turns the keys of row i and puts keys and values [K, E] where the cache wants them.
static void place(const DecoderLayer& a, const DecoderCall& call, float* k, const float* v, int64_t i) {
  const int64_t e = a.head_dim, b = i / call.length, p = call.totals[b] - call.length + i % call.length;
  norm_heads(a, a.k_norm, k, a.kv_heads);
  for (int64_t h = 0; h < a.kv_heads; h++) {
    turn_head(k + h * e, call.cosines + i * e, call.sines + i * e, e, attending::at(call.keys, b, h, p));
    __builtin_memcpy(attending::at(call.values, b, h, p), v + h * e, e * sizeof(float));
  }
}

// Of each row's last `length` queries, whose rows are `apart` floats apart.
static Attention attention_of(const DecoderLayer& a, const DecoderCall& call, float* q, int64_t apart, int64_t length,
                              float* out) {
  const int64_t width = a.heads * a.head_dim;
  Attention attention;
  attention.q = {q, length * apart, apart, a.head_dim};
  attention.out = {out, length * width, width, a.head_dim};
  attention.keys = call.keys;
  attention.values = call.values;
  attention.rows = call.rows;
  attention.length = length;
  attention.heads = a.heads;
  attention.kv_heads = a.kv_heads;
  attention.head_dim = a.head_dim;
  attention.totals = call.totals;
  attention.mask = call.mask;
  attention.mask_width = call.mask_width;
  attention.window = a.window;
  attention.causal = true;
  attention.scale = 1.f / std::sqrt(float(a.head_dim));
  return attention;
}

// Attention of many queries; in bfloat16 where a layer of int8 products asks for that.
static void attend_many(const DecoderLayer& a, const Attention& call) {
  if (a.bfloat16 && a.q.weight.int8_activations) return require_bfloat16().attention(call);
  attention(call);
}

// silu(gate) * up
static Linear swiglu(const DecoderLayer& a, const float* x, int64_t rows, float* out) {
  Linear both = product(a.gate, x, rows, out, a.features);
  both.up = a.up.weight;
  both.activation = Activation::kSwiglu;
  return both;
}

static Router router_of(const SparseMLP& a, const float* logits, float* weights, int32_t* chosen) {
  Router router;
  router.logits = logits;
  router.weights = weights;
  router.chosen = chosen;
  router.count = a.count;
  router.top = a.top;
  router.normalised = a.normalised;
  return router;
}

static Experts experts_of(const SparseMLP& a, const float* x, int64_t rows, const Router& router, float* out) {
  Experts experts;
  experts.gate_up = a.gate_up.weight;
  experts.down = a.down.weight;
  experts.count = a.count;
  experts.x = x;
  experts.out = out;
  experts.chosen = router.chosen;
  experts.weights = router.weights;
  experts.M = rows;
  experts.top = a.top;
  return experts;
}

// out += sparse MLP(normed), of few rows; for use within a parallel region. shared: `inner_floats` for all threads.
static void add_sparse_part(const SparseMLP& a, const float* normed, int64_t rows, float* shared, float* out, int thread,
                            int count) {
  float* own = scratch(kExperts5, 2 * rows * a.top);  // every thread chooses for itself: made faster than waited for
  const Router router = router_of(a, shared, own, (int32_t*)own + rows * a.top);
  linear_part(product(a.router, normed, rows, shared, a.count), thread, count);
#pragma omp barrier
  for (int64_t i = 0; i < rows; i++) mixing::route_row(router, i);
  mixing::few_part(experts_of(a, normed, rows, router, out), shared + rows * a.count, thread, count);
}

// Floats that the rows of a layer's MLP need between its products.
static int64_t inner_floats(const DecoderLayer& a, int64_t rows) {
  return rows * (a.sparse.count ? a.sparse.count + a.sparse.top * a.sparse.gate_up.weight.N : a.features);
}

static void decode(const DecoderLayer& a, const DecoderCall& call) {
  const int64_t m = call.rows * call.length, d = a.width;
  const Qkv at_row = qkv_of(a);
  float* qkv = scratch(kLayer1, m * at_row.row);
  float* attended = scratch(kLayer2, m * a.heads * a.head_dim);
  float* gate = scratch(kLayer3, inner_floats(a, m));
  const Attention attention = attention_of(a, call, qkv, at_row.row, call.length, attended);
  const attending::FewPlan plan = attending::plan_few(attention);
#pragma omp parallel num_threads(threads())
  {
    Tiles tiles(m >= kTileRows);
    const int thread = omp_get_thread_num(), count = omp_get_num_threads();
    const auto multiply = [&](Linear product) {
      product.rounded = a.bfloat16 && !a.sparse.count;
      linear_part(product, thread, count);
    };
    float* normed = scratch(kLayer4, m * d);  // of each thread: made faster than waited for
    norm_rows(norm_of(call.x, a.norm1, nullptr, normed, m, d, a.eps1, false), 0, m);
    multiply(product(a.q, normed, m, qkv, at_row.row));
    multiply(product(a.k, normed, m, qkv + at_row.k, at_row.row));
    multiply(product(a.v, normed, m, qkv + at_row.v, at_row.row));
#pragma omp barrier
#pragma omp for schedule(static)
    for (int64_t i = 0; i < m; i++) {
      float* row = qkv + i * at_row.row;
      turn_queries(a, call, row, i);
      place(a, call, row + at_row.k, row + at_row.v, i);
    }
    attending::attend_few_part(attention, plan);
    multiply(added(a.o, attended, m, call.out, call.x, nullptr));
#pragma omp barrier
    norm_rows(norm_of(call.out, a.norm2, nullptr, normed, m, d, a.eps2, false), 0, m);
    if (a.sparse.count) {
      add_sparse_part(a.sparse, normed, m, gate, call.out, thread, count);
    } else {
      multiply(swiglu(a, normed, m, gate));
#pragma omp barrier
      multiply(added(a.down, gate, m, call.out, call.out, nullptr));
    }
  }
}

// out += MLP(normed).
static void add_mlp(const DecoderLayer& a, const float* normed, int64_t rows, float* out) {
  const SparseMLP& sparse = a.sparse;
  if (!sparse.count) {
    float* gate = scratch(kLayer3, rows * a.features);
    linear(swiglu(a, normed, rows, gate));
    return linear(added(a.down, gate, rows, out, out, nullptr));
  }
  float* logits = scratch(kLayer3, rows * (sparse.count + 2 * sparse.top));
  float* weights = logits + rows * sparse.count;
  const Router router = router_of(sparse, logits, weights, (int32_t*)weights + rows * sparse.top);
  linear(product(sparse.router, normed, rows, logits, sparse.count));
#pragma omp parallel for schedule(static) num_threads(threads())
  for (int64_t i = 0; i < rows; i++) mixing::route_row(router, i);
  experts(experts_of(sparse, normed, rows, router, out));
}

// x + attention's share and then the MLP's, of n rows: x and out [n, D], attended [n, H * E]. Both are worked on in strips.
static void add_shares(const DecoderLayer& a, const float* x, const float* attended, float* out, int64_t n) {
  const int64_t d = a.width, wide = a.heads * a.head_dim, strip = n < kStrip ? n : kStrip;
  float* normed = scratch(kLayer4, strip * d);
  for (int64_t first = 0; first < n; first += kStrip) {
    const int64_t rows = n - first < kStrip ? n - first : kStrip;
    float* to = out + first * d;
    linear(added(a.o, attended + first * wide, rows, to, x + first * d, nullptr));
    norm(norm_of(to, a.norm2, nullptr, normed, rows, d, a.eps2, false));
    add_mlp(a, normed, rows, to);
  }
}

// The queries, keys and values of all rows; where `queries` is false, keys and values alone.
static void project(const DecoderLayer& a, const DecoderCall& call, float* qkv, bool queries) {
  const int64_t m = call.rows * call.length, d = a.width;
  const Qkv at_row = qkv_of(a);
  float* normed = scratch(kLayer4, (m < kStrip ? m : kStrip) * d);
  for (int64_t first = 0; first < m; first += kStrip) {
    const int64_t n = m - first < kStrip ? m - first : kStrip;
    float* to = qkv + first * at_row.row;
    norm(norm_of(call.x + first * d, a.norm1, nullptr, normed, n, d, a.eps1, false));
    if (queries) linear(product(a.q, normed, n, to, at_row.row));
    linear(product(a.k, normed, n, to + at_row.k, at_row.row));
    linear(product(a.v, normed, n, to + at_row.v, at_row.row));
  }
#pragma omp parallel for schedule(static) num_threads(threads())
  for (int64_t i = 0; i < m; i++) {
    float* row = qkv + i * at_row.row;
    if (queries) turn_queries(a, call, row, i);
    place(a, call, row + at_row.k, row + at_row.v, i);
  }
}

static void prefill(const DecoderLayer& a, const DecoderCall& call) {
  const int64_t m = call.rows * call.length;
  const Qkv at_row = qkv_of(a);
  float *qkv = scratch(kLayer1, m * at_row.row), *attended = scratch(kLayer2, m * a.heads * a.head_dim);
  project(a, call, qkv, true);
  attend_many(a, attention_of(a, call, qkv, at_row.row, call.length, attended));
  add_shares(a, call.x, attended, call.out, m);
}

// The same where only each row's last position goes on: of the others there are keys and values alone.
static void prefill_last(const DecoderLayer& a, const DecoderCall& call) {
  const int64_t d = a.width, wide = a.heads * a.head_dim, b = call.rows;
  float* qkv = scratch(kLayer1, call.rows * call.length * qkv_of(a).row);
  project(a, call, qkv, false);
  float* last = scratch(kLayer2, b * (2 * d + 2 * wide));
  float *normed = last + b * d, *q = normed + b * d, *attended = q + b * wide;
  for (int64_t i = 0; i < b; i++)
    __builtin_memcpy(last + i * d, call.x + ((i + 1) * call.length - 1) * d, d * sizeof(float));
  norm(norm_of(last, a.norm1, nullptr, normed, b, d, a.eps1, false));
  linear(product(a.q, normed, b, q, wide));
  for (int64_t i = 0; i < b; i++) turn_queries(a, call, q + i * wide, (i + 1) * call.length - 1);
  attention(attention_of(a, call, q, wide, 1, attended));
  add_shares(a, last, attended, call.out, b);
}

}  // namespace layering

static void decoder_layer(const DecoderLayer& a, const DecoderCall& call) {
  if (call.length <= attending::kFew && call.rows * call.length <= kFewRows && (!call.last_only || call.length == 1))
    layering::decode(a, call);
  else
    call.last_only ? layering::prefill_last(a, call) : layering::prefill(a, call);
}

}  // namespace ISA
