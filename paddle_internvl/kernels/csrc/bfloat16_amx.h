// One product of blocks by AMX: tiles of 16 rows x 64 bytes, 16 x 16 sums an instruction.
//
// In: 32 rows of blocks, a panel. Out: their sums [32][32].

namespace ISA {

// sums [32][32] = or += `steps` blocks of 32 rows times as many of a panel; with `half` only the first 16 rows.
// Meanwhile `soon` is fetched.
static void multiply(const Half* rows, const Half* panel, long steps, float* sums, bool more, bool half,
                     Soon& soon) {
  __asm__ volatile("" ::: "memory");  // GCC does not know that tiles are loaded from memory
  check(rows, steps * kSquare * 2 - (half ? kSquare : 0));
  check(panel, steps * kSquare * 2);
  check(sums, (half ? 2 : 4) * kSquare);
  float* low = sums + kSquare / 2;    // the other 16 rows
  if (more) {
    _tile_loadd(0, sums, 128);
    _tile_loadd(1, sums + 16, 128);
  } else {
    _tile_zero(0);
    _tile_zero(1);
  }
  if (half) {
    for (long k = 0; k < steps; k++, rows += kSquare, panel += kSquare) {
      soon.fetch();
      _tile_loadd(4, rows, 64);
      _tile_loadd(6, panel, 128);
      _tile_loadd(7, panel + kSide, 128);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
    }
  } else {
    if (more) {
      _tile_loadd(2, low, 128);
      _tile_loadd(3, low + 16, 128);
    } else {
      _tile_zero(2);
      _tile_zero(3);
    }
    for (long k = 0; k < steps; k++, rows += kSquare, panel += kSquare) {
      soon.fetch();
      _tile_loadd(4, rows, 64);
      _tile_loadd(6, panel, 128);
      _tile_loadd(7, panel + kSide, 128);
      _tile_loadd(5, rows + kSquare / 2, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(2, low, 128);
    _tile_stored(3, low + 16, 128);
  }
  _tile_stored(0, sums, 128);
  _tile_stored(1, sums + 16, 128);
}

}  // namespace ISA
