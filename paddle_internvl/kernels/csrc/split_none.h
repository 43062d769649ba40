// The parts of split_rows.h for instruction sets without tiles: none.

namespace ISA {

constexpr long kFewRows = kStreamRows, kTileRows = kFewRows + 1;

struct Tiles {
  explicit Tiles(bool = true) {}
};
struct Parts {
  const void* at = nullptr;
};
static Parts parts_of(const Weight&, const float*, long, long, bool) { return {}; }
static bool fits_few(const Weight&, long) { return false; }
static bool fits_split(const Weight&) { return false; }
static bool fits_split(const Linear&) { return false; }
static void linear_split(const Linear&) {}
static void few_parts(const Weight&, const Parts&, long, long, float*, long) {}

}  // namespace ISA
