// The epilogue of products of blocks: what follows the sums (linear_arguments.h), and writes them where they belong.
//
// In: sums [32][32] of panels of columns. Out: floats or Blocks. Tiles are multiplied beside a processor's other instructions: the
// epilogue of a block of rows runs between the tile products of the next one.

namespace ISA {

constexpr long kSoon = 2;  // rows of out that are fetched before they are written

// Row r and the columns from `column` on, 32 at most, of sums and, of kSwiglu, `up`. The result goes to a.out, or to blocks.
static void finish_row(const Linear& a, const Blocks& blocks, const float* sums, const float* up, long r, long column) {
  const long columns = a.weight.N - column < kSide ? a.weight.N - column : kSide;
  if (!blocks.at) {
    const float* from = a.residual ? a.residual + (r + kSoon) * a.out_stride + column : nullptr;
    const float* to = a.out + (r + kSoon) * a.out_stride + place_of(a, column);
    for (long c = 0; c < columns; c += 16) {
      if (from) prefetch(from + c);
      prefetch_to_write(to + c);
    }
    return finish(a, sums, up, kSide, r, 1, column, columns);
  }
  __m512 y[2] = {};
  for (long c = 0; c < columns; c += 16) y[c / 16] = (__m512)finished(a, sums + c, up + c, r, column + c, columns - c);
  _mm512_store_si512(blocks.row(r, column / kSide), _mm512_maskz_mov_epi16(first_halves(columns), halves(y[0], y[1])));
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
