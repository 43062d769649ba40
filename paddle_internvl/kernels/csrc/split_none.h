// The parts of split_rows.h for instruction sets without tiles: none.

namespace ISA {

constexpr long kFewRows = kStreamRows;  // of x, at most

struct Tiles {};
struct Parts {
  const void* at = nullptr;
};
static Parts parts_of(const Weight&, const float*, long, long) { return {}; }
static void few_parts(const Weight&, const Parts&, long, long, float*, long) {}

}  // namespace ISA
