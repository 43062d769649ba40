// One product of int8 blocks by AMX: see amx_product.h.
#include "amx_product.h"

namespace ISA {
namespace int8 {

constexpr int kFlip = 0;  // both sides are signed

struct Int8Products {
  INLINE void upper() {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
  }
  INLINE void lower() {
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
};

static void multiply(const int8_t* rows, const int8_t* panel, long steps, int32_t* sums, bool more, bool half, const int32_t*) {
  multiply_tiles<Int8Products>(rows, panel, steps, sums, more, half, Idle());
}

}  // namespace int8
}  // namespace ISA
