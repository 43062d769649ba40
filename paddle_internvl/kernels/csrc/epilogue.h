// The epilogue of products of blocks: what follows the sums (linear_arguments.h), and writes them where they belong.
//
// In: sums [32][32] of panels of columns. Out: floats or Blocks. Tiles are multiplied beside a processor's other instructions: the
// epilogue of a block of rows runs between the tile products of the next one.

namespace ISA {

// Row r and the columns from `column` on, 32 at most, of sums and, of kSwiglu, `up`. The result goes to a.out, or to blocks.
static void finish_row(const Linear& a, const Blocks& blocks, const float* sums, const float* up, long r, long column) {
  constexpr long kSoon = 2;  // rows of out that are fetched before they are written
  const long columns = a.weight.N - column;
  V y[2];
  for (int v = 0; v < 2; v++) {
    const long n = columns - 16 * v, c = column + 16 * v;
    y[v] = load(sums + 16 * v);
    if (n <= 0) break;
    if (a.bias) y[v] += some(a.bias + c, n);
    if (a.activation == Activation::kGelu) y[v] = gelu(y[v]);
    if (a.activation == Activation::kSwiglu) y[v] = silu(y[v]) * load(up + 16 * v);
    if (a.layer_scale) y[v] *= some(a.layer_scale + c, n);
    if (blocks.at) continue;
    if (a.residual) {
      const float* from = a.residual + r * a.out_stride + c;
      y[v] += some(from, n);
      prefetch(from + kSoon * a.out_stride);
    }
    float* to = a.out + r * a.out_stride + place_of(a, c);
    prefetch_to_write(to + kSoon * a.out_stride);
    if (n >= 16) store(to, y[v]);
    else store_first(to, y[v], n);
  }
  if (!blocks.at) return;
  __m512i both = halves((__m512)y[0], (__m512)y[1]);
  if (columns < kSide) both = _mm512_maskz_mov_epi16(first_halves(columns), both);
  _mm512_store_si512(blocks.row(r, column / kSide), both);
}

// The epilogue of up to 32 rows of some panels of columns.
class Epilogue {
 public:
  Epilogue() = default;

  // sums: [panels][32][32], and of kSwiglu those of the second weight behind them. steps: between which it is shared out.
  Epilogue(const Linear& a, const Blocks& blocks, const float* sums, long row, long rows, long column, long panels, long steps)
      : a_(&a), blocks_(blocks), sums_(sums), row_(row), column_(column), panels_(panels), left_(rows * panels) {
    each_ = (left_ + steps - 1) / steps;
  }

  // One of the steps.
  void step() {
    if (left_) finish(each_ < left_ ? each_ : left_);
  }

  // All that is left.
  void finish() { finish(left_); }

 private:
  __attribute__((noinline)) void finish(long count) {
    left_ -= count;
    for (; count > 0; count--) {
      const float* at = sums_ + panel_ * kSquare + done_ * kSide;
      finish_row(*a_, blocks_, at, at + panels_ * kSquare, row_ + done_, column_ + panel_ * kSide);
      if (++panel_ == panels_) panel_ = 0, done_++;
    }
  }

  const Linear* a_ = nullptr;
  Blocks blocks_;
  const float* sums_ = nullptr;
  long row_ = 0, column_ = 0, panels_ = 0;
  long left_ = 0, each_ = 0;   // rows of panels: in all, and of a step
  long done_ = 0, panel_ = 0;  // rows that are finished, and the panels of the next one that are
};

// What the processor does between the tile products of a block of rows: the epilogue of the block before, and fetching the
// rows of the next one.
struct Meanwhile {
  Epilogue before;
  const char* next = nullptr;
  long lines = 0;  // of `next` that a step fetches

  void step() {
    for (long i = 0; i < lines; i++, next += 64) prefetch(next);
    before.step();
  }
};

}  // namespace ISA
