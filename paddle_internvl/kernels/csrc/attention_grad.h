// The gradient of attention (FlashAttention, Dao et al. 2022, algorithm 4): weights are made again from queries and keys, so
// that the forward pass keeps nothing.
//
// With weights P = softmax(scale q k^T), of a query block at a time, transposed as in attention_many.h:
//   dV = P^T dO,  dP = dO V^T,  dS = P (dP - sum(P dP)),  dQ = scale dS K,  dK = scale dS^T Q
// A task is a query head: threads share no sums, and the heads of a kv head are summed by whoever calls.
// The sum runs over the same rounded P and dP as the rest, so that the dS of a query sum to 0, as those of a softmax do; the
// paper's dO O is equal only before rounding, which a bias of the keys would show.
// In: an AttentionGrad. A key that no query sees, and a query that sees no key, get zeros.

namespace ISA {
namespace attending {

// What a task has in memory, for a head of E floats and n keys.
struct GradMemory {
  LaidOut keys, values;     // keys for scores, and for dQ in the place of values; values in the place of keys
  float *weights, *slopes;  // P and dS, [n][kPanel]
  float* panel;             // q, then dO, of the block, [E][kPanel]
  float *rows, *grad_rows;  // the same as rows, [columns / kPanel][kPanel][kPanel]
  float *sums;              // dQ [E][kPanel]
  float *dk, *dv;           // [columns / kPanel][n][kPanel]
  int64_t columns, apart;   // E in whole panels; floats between two of dk
};

// Query rows [first, end) as panels of columns, the other rows and columns zero.
static void rows_of(const Heads& x, int64_t row, int64_t head, int64_t first, int64_t end, int64_t e, int64_t columns,
                    float* out) {
  fill(out, columns * kPanel, 0.f);
  for (int64_t i = first; i < end; i++)
    for (int64_t d = 0; d < e; d += kPanel)
      __builtin_memcpy(out + d * kPanel + (i - first) * kPanel, at(x, row, i, head) + d, least(kPanel, e - d) * sizeof(float));
}

// sums[columns / kPanel][n][kPanel] += x [n][kPanel queries] times rows of the queries
static void add_products(const float* x, int64_t n, const float* rows, int64_t columns, int64_t apart, float* sums) {
  float tile[kPanel * kTile + LANES];
  for (int64_t i = 0; i < n; i += kTile) {
    const int64_t here = least(kTile, n - i);
    tile_rows([&](long r) { return x + (i + r) * kPanel; }, here, kPanel, tile);
    for (int64_t d = 0; d < columns; d += kPanel)
      for (int c = 0; c < kPanel; c += kColumns)
        multiply_of(here)(tile, rows + d * kPanel + c, kPanel, sums + d / kPanel * apart + i * kPanel + c, kPanel, true,
                          {x + (i + kTile) * kPanel, 64});
  }
}

// Query rows [first, end) of one head, at most kPanel: their dQ; their part of dK and dV.
static void grad_block(const AttentionGrad& call, const GradMemory& m, int64_t head, int64_t first, int64_t end) {
  const Attention& a = call.forward;
  const int64_t e = a.head_dim, row = m.keys.row, count = end - first;
  const int64_t own = a.totals[row] - a.length + first;  // position of the first query
  const int64_t stop = a.causal ? least(m.keys.end, own + count) : m.keys.end;
  int64_t start = 0;
  if (a.causal && a.window) start = most(0, own - a.window + 1) / kTile * kTile;
  const int64_t n = stop - start;

  const auto q = [&](long i) { return at(a.q, row, first + i, head); };
  const auto grad = [&](long i) { return at(call.grad, row, first + i, head); };
  panel_rows(q, count, e, a.scale * 1.44269504f, m.panel);
  multiply_keys(m.keys.keys + start * e, m.panel, n, e, m.weights);
  if (a.mask || a.causal) hide(a, m.keys, m.weights, start, n, own);
  V tops[kParts], totals[kParts], by[kParts], along[kParts];
  for (int c = 0; c < kParts; c++) tops[c] = set(kLow), totals[c] = along[c] = zero();
  weigh_panel(m.weights, n, tops, totals, nullptr, 0);
  reciprocals(totals, by);

  panel_rows(grad, count, e, 1.f, m.panel);
  multiply_keys(m.values.keys + start * e, m.panel, n, e, m.slopes);
  for (int64_t i = 0; i < n; i++)
    for (int c = 0; c < kParts; c++) {
      float* weight = m.weights + i * kPanel + c * LANES;
      const V p = load(weight) * by[c];
      store(weight, p);
      along[c] = fma(p, load(m.slopes + i * kPanel + c * LANES), along[c]);
    }
  for (int64_t i = 0; i < n; i++)
    for (int c = 0; c < kParts; c++) {
      const int64_t at = i * kPanel + c * LANES;
      store(m.slopes + at, load(m.weights + at) * (load(m.slopes + at) - along[c]) * set(a.scale));
    }

  fill(m.sums, e * kPanel, 0.f);
  add_values(m.values, m.values.values + start * kTile, m.slopes, n, e, m.sums);
  for (int c = 0; c < kParts; c++) by[c] = set(1.f);
  write_rows(call.q, row, head, first, count, e, m.sums, by);

  rows_of(a.q, row, head, first, end, e, m.columns, m.rows);
  rows_of(call.grad, row, head, first, end, e, m.columns, m.grad_rows);
  add_products(m.slopes, n, m.rows, m.columns, m.apart, m.dk + start * kPanel);
  add_products(m.weights, n, m.grad_rows, m.columns, m.apart, m.dv + start * kPanel);
}

// Sums [columns / kPanel][n][kPanel] as the rows [0, n) of a head.
static void write_sums(const float* sums, int64_t apart, const Heads& to, int64_t row, int64_t head, int64_t n, int64_t e) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t d = 0; d < e; d += kPanel)
      __builtin_memcpy(at(to, row, i, head) + d, sums + d / kPanel * apart + i * kPanel, least(kPanel, e - d) * sizeof(float));
}

// One query head of a row.
static void grad_head(const AttentionGrad& call, int64_t row, int64_t head) {
  const Attention& a = call.forward;
  const int64_t e = a.head_dim, n = a.totals[row];
  GradMemory m;
  m.columns = rounded_up(e, kPanel);
  m.apart = n * kPanel;
  LaidOut& laid = m.keys;
  laid.row = row, laid.first_head = head / (a.heads / a.kv_heads), laid.heads = 1, laid.first = 0, laid.end = n;
  set_sizes(laid, e);
  m.values = laid;
  float* memory = scratch(kAttention1, 2 * laid.keys_apart + laid.values_apart + LANES);
  m.keys.keys = memory;
  m.values.keys = memory + laid.keys_apart;
  m.values.values = memory + 2 * laid.keys_apart;
  for (int64_t p = 0; p < n; p += kTile) {
    lay_out_keys(a.keys, m.keys, e, 0, p);
    lay_out_keys(a.values, m.values, e, 0, p);
    lay_out_values(a.keys, m.values, e, 0, p);
  }
  m.dk = scratch(kAttention2, 2 * m.columns * n);
  m.dv = m.dk + m.columns * n;
  fill(m.dk, 2 * m.columns * n, 0.f);
  m.weights = scratch(kAttention3, (2 * n + 2 * e + 2 * m.columns) * kPanel);
  m.slopes = m.weights + n * kPanel;
  m.panel = m.slopes + n * kPanel;
  m.sums = m.panel + e * kPanel;
  m.rows = m.sums + e * kPanel;
  m.grad_rows = m.rows + m.columns * kPanel;
  for (int64_t first = 0; first < a.length; first += kPanel)
    grad_block(call, m, head, first, least(a.length, first + kPanel));
  write_sums(m.dk, m.apart, call.keys, row, head, n, e);
  write_sums(m.dv, m.apart, call.values, row, head, n, e);
}

}  // namespace attending

static void attention_grad(const AttentionGrad& call) {
  const int64_t heads = call.forward.heads;
#pragma omp parallel for num_threads(threads()) schedule(monotonic : dynamic)
  for (int64_t i = 0; i < call.forward.rows * heads; i++) attending::grad_head(call, i / heads, i % heads);
}

}  // namespace ISA
