// Panels of weights as numbers, and what follows a product with them (linear_arguments.h).
//
// In: a Weight; sums. Out: floats; results where they belong. It knows no loop over rows.

namespace ISA {

constexpr int kPanel = 32;                                                // columns of a panel
constexpr int kVectors = kPanel / LANES;                                  // of a panel's row
constexpr int kFew = LANES == 16 ? 8 : LANES == 8 ? 3 : 1;                // rows that are streamed through at once
constexpr int kTile = LANES == 16 ? 14 : LANES == 8 ? 6 : 4;              // rows of a register tile
constexpr int kColumns = 2 * LANES;                                       // and its columns
constexpr int kGroup = 4;                                                 // panels that are worked on together
constexpr long kDepth = 1024;                                             // rows of W that are worked on together
constexpr long kAhead = 8192;                                             // bytes that are fetched ahead
constexpr long kFewRows = 8;                                              // up to here rows are streamed

static const float kZeros[kPanel] = {};

// Bytes of one row of a panel.
static constexpr long row_bytes(Kind kind) {
  return kind == Kind::kFloat32 ? 128 : kind == Kind::kBFloat16 ? 64 : kind == Kind::kInt8 ? 32 : 16;
}
static long panel_bytes(const Weight& w) {
  return (w.kind == Kind::kInt4 ? (w.K + 1) / 2 * 2 : w.K) * row_bytes(w.kind);
}
static long groups_of(const Weight& w) { return w.scales ? (w.K + w.group - 1) / w.group : 1; }
static long panels_of(const Weight& w) { return (w.N + kPanel - 1) / kPanel; }

template <Kind kind>
INLINE V weights(const char* row, int vector) {
  if constexpr (kind == Kind::kFloat32) return load((const float*)row + vector * LANES);
  if constexpr (kind == Kind::kBFloat16) return load((const uint16_t*)row + vector * LANES);
  return load((const int8_t*)row + vector * LANES);
}

// Writes rows x columns of sums to where they belong: `panels` panels from number `first`, sums `stride` apart.
static void finish(const Linear& a, const float* sums, long stride, long row, long rows, long first, long panels) {
  const bool pairs = a.activation == Activation::kSwiglu;
  for (long r = 0; r < rows; r++) {
    for (long p = 0; p < panels; p += pairs ? 2 : 1) {
      const long column = (first + p) * kPanel / (pairs ? 2 : 1);
      const long width = a.columns - column < kPanel ? a.columns - column : kPanel;
      const float* bias = a.bias ? a.bias + (first + p) * kPanel : kZeros;
      const long biased = a.bias && !pairs ? width : kPanel;
      const float* from = sums + r * stride + p * kPanel;
      const long at = (row + r) * a.out_stride + column;
      for (int v = 0; v < kPanel && v < width; v += LANES) {
        const long n = width - v < LANES ? width - v : LANES;
        const bool all = n == LANES;
        V y = load(from + v) + (biased - v >= LANES ? load(bias + v) : load_first(bias + v, n));
        if (a.activation == Activation::kGelu) y = gelu(y);
        if (pairs) y = silu(y) * (load(from + kPanel + v) + (a.bias ? load(bias + kPanel + v) : zero()));
        if (a.layer_scale) y *= all ? load(a.layer_scale + column + v) : load_first(a.layer_scale + column + v, n);
        if (a.residual) y += all ? load(a.residual + at + v) : load_first(a.residual + at + v, n);
        if (all) store(a.out + at + v, y);
        else store_first(a.out + at + v, y, n);
      }
    }
  }
}

}  // namespace ISA
