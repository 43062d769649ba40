// One product of int8 blocks by AMX: tiles of 16 rows x 64 bytes, 16 x 16 int32 sums an instruction. The tiles are those
// of thread_tiles.h.

namespace ISA {
namespace int8 {

constexpr int kFlip = 0;  // both sides are signed

// sums [32][32] = or += `steps` blocks of 32 rows times as many of a panel; with `half` only the first 16 rows.
// Meanwhile `soon` is fetched.
static void multiply(const int8_t* rows, const int8_t* panel, long steps, int32_t* sums, bool more, bool half, const int32_t*,
                     Soon& soon) {
  __asm__ volatile("" ::: "memory");  // GCC does not know that tiles are loaded from memory
  check(rows, steps * kBlock - (half ? kBlock / 2 : 0));
  check(panel, steps * kBlock);
  check(sums, (half ? 2 : 4) * 1024);
  int32_t* low = sums + 512;  // the other 16 rows
  if (more) {
    _tile_loadd(0, sums, 128);
    _tile_loadd(1, sums + 16, 128);
    if (!half) {
      _tile_loadd(2, low, 128);
      _tile_loadd(3, low + 16, 128);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  if (half) {
    for (long k = 0; k < steps; k++, rows += kBlock, panel += kBlock) {
      soon.fetch();
      _tile_loadd(4, rows, 64);
      _tile_loadd(6, panel, 128);
      _tile_loadd(7, panel + 64, 128);
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
    }
  } else {
    for (long k = 0; k < steps; k++, rows += kBlock, panel += kBlock) {
      soon.fetch();
      _tile_loadd(4, rows, 64);
      _tile_loadd(6, panel, 128);
      _tile_loadd(7, panel + 64, 128);
      _tile_loadd(5, rows + kBlock / 2, 64);
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
    _tile_stored(2, low, 128);
    _tile_stored(3, low + 16, 128);
  }
  _tile_stored(0, sums, 128);
  _tile_stored(1, sums + 16, 128);
}

}  // namespace int8
}  // namespace ISA
