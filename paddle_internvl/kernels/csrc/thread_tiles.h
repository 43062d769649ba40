// The tiles of AMX that a thread has: 16 rows x 64 bytes each.
#include "amx_tiles.h"

namespace ISA {

// The tiles of a thread, as long as this lives, if it has `use` for them.
class Tiles {
 public:
  explicit Tiles(bool use = true) : used_(use) {
    if (used_) _tile_loadconfig(&kTileLayout);
  }
  ~Tiles() {
    if (used_) _tile_release();
  }

 private:
  bool used_;
};

// AddressSanitizer does not see the loads and stores of tiles.
#if defined(__SANITIZE_ADDRESS__)
extern "C" void* __asan_region_is_poisoned(void* begin, size_t size);
static void check(const void* p, long bytes) {
  if (__asan_region_is_poisoned((void*)p, bytes)) __builtin_trap();
}
#else
static void check(const void*, long) {}
#endif

}  // namespace ISA
