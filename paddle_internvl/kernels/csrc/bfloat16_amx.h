// One product of bfloat16 blocks by AMX: see amx_product.h.
#include "amx_product.h"

namespace ISA {

struct BFloat16Products {
  INLINE void upper() {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
  }
  INLINE void lower() {
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
};

template <class Work = Idle>
static void multiply(const Half* rows, const Half* panel, long steps, float* sums, bool more, bool half,
                     Work&& meanwhile = {}) {
  multiply_tiles<BFloat16Products>(rows, panel, steps, sums, more, half, meanwhile);
}

}  // namespace ISA
