// Rows of weights as vectors of floats, and what follows a product with them (linear_arguments.h).
//
// In: a Weight; sums. Out: floats; results where they belong. It knows no loop over k.

namespace ISA {

constexpr int kPanel = 32;  // columns that are worked on together

// Numbers that a byte holds, or the bytes of a number.
static constexpr long row_bytes(Kind kind, long n) { return kind == Kind::kFloat32 ? 4 * n : kind == Kind::kBFloat16 ? 2 * n : n; }
static constexpr long rows_in_a_byte(Kind kind) { return kind == Kind::kInt4 ? 2 : 1; }
static long groups_of(const Weight& w) { return w.scales ? (w.K + w.group - 1) / w.group : 1; }

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

// Writes rows x columns of sums to where they belong. Sums lie `stride` apart; of kSwiglu `up` are the second weight's.
static void finish(const Linear& a, const float* sums, const float* up, long stride, long row, long rows, long column,
                   long columns) {
  for (long r = 0; r < rows; r++)
    for (long c = 0; c < columns; c += LANES) {
      const long n = columns - c, at = (row + r) * a.out_stride + column + c;
      V y = load(sums + r * stride + c);
      if (a.bias) y += some(a.bias + column + c, n);
      if (a.activation == Activation::kGelu) y = gelu(y);
      if (a.activation == Activation::kSwiglu) y = silu(y) * load(up + r * stride + c);
      if (a.layer_scale) y *= some(a.layer_scale + column + c, n);
      if (a.residual) y += some(a.residual + at, n);
      if (n >= LANES) store(a.out + at, y);
      else store_first(a.out + at, y, n);
    }
}

}  // namespace ISA
