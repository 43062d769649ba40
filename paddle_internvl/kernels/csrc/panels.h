// Rows of weights as vectors of floats, and what follows a product with them (linear_arguments.h).
//
// In: a Weight; sums. Out: floats; results where they belong. It knows no loop over k.

namespace ISA {

constexpr int kPanel = 32;  // columns that are worked on together

// Numbers that a byte holds, or the bytes of a number.
static constexpr long row_bytes(Kind kind, long n) { return kind == Kind::kFloat32 ? 4 * n : kind == Kind::kBFloat16 ? 2 * n : n; }
static constexpr long rows_in_a_byte(Kind kind) { return kind == Kind::kInt4 ? 2 : 1; }
static long groups_of(const Weight& w) { return w.scales ? (w.K + w.group - 1) / w.group : 1; }

// The sum of what a row x has for group g of rows of W.
INLINE float total_of(const Weight& w, const float* x, long g) {
  float total = 0;
  for (long k = g * w.group; k < (g + 1) * w.group && k < w.K; k++) total += x[k];
  return total;
}

// `n` numbers of a row of floats or bytes, from `at` on; with n < LANES the others are zero.
template <Kind kind, bool all>
INLINE V weights(const char* at, long n) {
  char part[4 * LANES] = {};
  if (!all) __builtin_memcpy(part, at, row_bytes(kind, n));
  const char* from = all ? at : part;
  if constexpr (kind == Kind::kFloat32) return load((const float*)from);
  if constexpr (kind == Kind::kBFloat16) return load((const uint16_t*)from);
  return load((const int8_t*)from);
}

// The same of two rows of int4.
template <bool all>
INLINE void weights(const char* at, long n, V& low, V& high) {
  uint8_t part[LANES] = {};
  if (!all) __builtin_memcpy(part, at, n);
  load_nibbles(all ? (const uint8_t*)at : part, low, high);
}

INLINE V some(const float* p, long n) { return n >= LANES ? load(p) : load_first(p, n); }

// What becomes of up to LANES sums of a row, of `n` columns; of kSwiglu `up` are the second weight's.
INLINE V finished(const Linear& a, const float* sums, const float* up, long row, long column, long n) {
  V y = load(sums);
  if (a.bias) y += some(a.bias + column, n);
  if (a.activation == Activation::kGelu) y = gelu(y);
  if (a.activation == Activation::kSwiglu) y = silu(y) * load(up);
  if (a.layer_scale) y *= some(a.layer_scale + column, n);
  if (a.residual) y += some(a.residual + row * a.out_stride + column, n);
  return y;
}

// Where a column is in a row of out.
INLINE long place_of(const Linear& a, long column) {
  return a.out_block ? column / a.out_block * a.out_block_stride + column % a.out_block : column;
}

// Writes rows x columns of sums to where they belong. Sums lie `stride` apart.
static void finish(const Linear& a, const float* sums, const float* up, long stride, long row, long rows, long column,
                   long columns) {
  for (long r = 0; r < rows; r++)
    for (long c = 0; c < columns; c += LANES) {
      const long n = columns - c;
      const V y = finished(a, sums + r * stride + c, up + r * stride + c, row + r, column + c, n);
      float* to = a.out + (row + r) * a.out_stride + place_of(a, column + c);
      if (n >= LANES) store(to, y);
      else store_first(to, y, n);
    }
}

}  // namespace ISA
