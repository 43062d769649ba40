// Whole layers of the vision tower, and the projector: one call each. See layer_arguments.h and layers.h.

namespace ISA {
namespace layering {

// The norm of rows as tiles (linear_many.h), each made by the thread that has its rows at hand.
static void norm_tiles(const Norm& a, const TiledRows& to) {
#pragma omp parallel for schedule(static) num_threads(threads())
  for (long t = 0; t < to.count; t++) {
    Norm part = a;
    part.x += t * to.height * a.x_apart;
    part.out = scratch(kLinearSums, kTile * a.width);
    norm_rows(part, 0, to.rows(t));
    fill_tile(to, t, [&](long r) { return part.out + r * a.width; });
  }
}

// Whether n rows are brought into tiles for products with such a weight.
static bool takes_tiles(const Weight& w, int64_t n) { return n > kFewRows && !w.int8_activations && !fits_split(w); }

// A product of a norm's rows; where tiles are taken they never become rows.
static Linear normed_product(const Norm& a, const Dense& dense, float* out, int64_t out_apart) {
  Linear product = layering::product(dense, a.out, a.rows, out, out_apart);
  if (!takes_tiles(dense.weight, a.rows)) return norm(a), product;
  norm_tiles(a, tiles_of(a.rows, a.width, a.out));
  product.x_tiles = a.out;
  return product;
}

// Whether n rows go from one product to the next as tiles.
static bool tiles_between(int64_t n, const Dense& first, const Dense& second) {
  return takes_tiles(first.weight, n) && takes_tiles(second.weight, n);
}

// Row i of the shuffled patches: its merge^2 patches side by side.
static void take_patches(const Projector& a, const ProjectorCall& call, int64_t i, float* to) {
  const int64_t c = a.width, grid = call.side / a.merge, place = i % (grid * grid);
  const int64_t down = place / grid, across = place % grid;
  const int64_t row = (a.transposed ? across : down) * a.merge, column = (a.transposed ? down : across) * a.merge;
  const float* tile = call.x + (i / (grid * grid) * (1 + call.side * call.side) + 1) * c;
  for (int64_t y = 0; y < a.merge; y++, to += a.merge * c)
    __builtin_memcpy(to, tile + ((row + y) * call.side + column) * c, a.merge * c * sizeof(float));
}

// In strips; patches, norms and the wide rows between the products stay in bounded memory.
static void project_patches(const Projector& a, const ProjectorCall& call) {
  const int64_t k = a.fc1.weight.K, d = a.fc1.weight.N, grid = call.side / a.merge, all = call.tiles * grid * grid;
  const int64_t most = kStrip / 4, strip = all < most ? all : most;  // rows of four or so patches
  float *rows = scratch(kLayer1, strip * k), *normed = scratch(kLayer4, tiled(strip, k)), *inner = scratch(kLayer3, tiled(strip, d));
  for (int64_t first = 0; first < all; first += most) {
    const int64_t n = all - first < most ? all - first : most;
#pragma omp parallel for schedule(static) num_threads(threads())
    for (int64_t i = 0; i < n; i++) take_patches(a, call, first + i, rows + i * k);
    Linear widened = normed_product(norm_of(rows, a.norm, a.norm_bias, normed, n, k, a.eps, true), a.fc1, inner, d);
    Linear narrowed = product(a.fc2, inner, n, call.out + first * a.fc2.weight.N, a.fc2.weight.N);
    widened.activation = Activation::kGelu;
    if (tiles_between(n, a.fc1, a.fc2)) narrowed.x_tiles = widened.out_tiles = inner;
    linear(widened);
    linear(narrowed);
  }
}

// RMSNorm of the queries and keys of rows [n, 3 C], over all heads together, where the layer has it.
static void norm_queries_and_keys(const VisionLayer& a, float* qkv, int64_t n) {
  const int64_t c = a.width;
  for (int part = 0; part < 2; part++) {
    const float* weight = part ? a.k_norm : a.q_norm;
    if (!weight) continue;
    Norm over_heads = norm_of(qkv + part * c, weight, nullptr, qkv + part * c, n, c, a.eps, false);
    over_heads.x_apart = over_heads.out_apart = 3 * c;
    norm(over_heads);
  }
}

// Of every position of the tiles, without its output. qkv: rows [tiles * length, 3 C]; by_head: [3 C / E, tiles * length, E].
static Attention attention_of(const VisionLayer& a, float* qkv, int64_t tiles, int64_t length, const int64_t* totals,
                              bool by_head) {
  const int64_t c = a.width, e = c / a.heads, n = tiles * length;
  const int64_t position = by_head ? e : 3 * c, head = by_head ? n * e : e, part = by_head ? n * c : c;
  Attention all;
  all.q = {qkv, length * position, position, head};
  all.keys = {qkv + part, nullptr, 0, length, length * position, head, position};
  all.values = all.keys;
  all.values.base = qkv + 2 * part;
  all.rows = tiles;
  all.length = length;
  all.heads = all.kv_heads = a.heads;
  all.head_dim = e;
  all.totals = totals;
  all.scale = 1.f / std::sqrt(float(e));
  return all;
}

// Tiles whose rows fit a strip, at least one.
static void see(const VisionLayer& a, const VisionCall& call) {
  const int64_t c = a.width, e = c / a.heads, most = kStrip / call.length > 1 ? kStrip / call.length : 1;
  const int64_t strip = (most < call.tiles ? most : call.tiles) * call.length;
  float *normed = scratch(kLayer4, tiled(strip, c)), *qkv = scratch(kLayer1, strip * 3 * c);
  float *attended = scratch(kLayer2, strip * c), *inner = scratch(kLayer3, tiled(strip, a.features));
  const bool by_head = e % LANES == 0 && !a.q_norm;  // a head's queries, keys and values each lie side by side
  int64_t totals[kStrip];
  for (int64_t& total : totals) total = call.length;
  for (int64_t tile = 0; tile < call.tiles; tile += most) {
    const int64_t tiles = call.tiles - tile < most ? call.tiles - tile : most, n = tiles * call.length;
    const float* x = call.x + tile * call.length * c;
    float* out = call.out + tile * call.length * c;
    const Norm norm1 = norm_of(x, a.norm1, a.norm1_bias, normed, n, c, a.eps, a.centred);
    Linear to_heads = normed_product(norm1, a.qkv, qkv, by_head ? e : 3 * c);
    if (by_head) to_heads.out_block = e, to_heads.out_block_stride = n * e;
    linear(to_heads);
    norm_queries_and_keys(a, qkv, n);
    Attention all = attention_of(a, qkv, tiles, call.length, totals, by_head);
    all.out = {attended, call.length * c, c, e};
    a.bfloat16 ? require_bfloat16().attention(all) : attention(all);
    linear(added(a.proj, attended, n, out, x, a.scale1));
    const Norm norm2 = norm_of(out, a.norm2, a.norm2_bias, normed, n, c, a.eps, a.centred);
    Linear widened = normed_product(norm2, a.fc1, inner, a.features);
    Linear narrowed = added(a.fc2, inner, n, out, out, a.scale2);
    widened.activation = Activation::kGelu;
    if (tiles_between(n, a.fc1, a.fc2)) narrowed.x_tiles = widened.out_tiles = inner;
    linear(widened);
    linear(narrowed);
  }
}

}  // namespace layering

static void vision_layer(const VisionLayer& a, const VisionCall& call) { layering::see(a, call); }

static void projector(const Projector& a, const ProjectorCall& call) { layering::project_patches(a, call); }

}  // namespace ISA
