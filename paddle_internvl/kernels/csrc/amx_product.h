// One product of blocks by AMX: tiles of 16 rows x 64 bytes, 16 x 16 sums an instruction.
//
// In: 32 rows of blocks of 64 bytes a row, or of several parts of such blocks, a panel of 32 columns. Out: their sums
// [32][32]. Instructions name their tiles by numbers that are constants: a kind of products is a struct with its two pairs of
// instructions, `upper` for the first 16 rows (tile 4 times 6 and 7, added to 0 and 1) and `lower` for the others (5 times 6
// and 7, added to 2 and 3). Panels are loaded past the first-level cache, where the rows stay that meet all panels.
#pragma once

namespace ISA {

// What runs between the steps of a product: nothing.
struct Idle {
  void step() {}
};

// sums [32][32] = or += `steps` blocks [parts][32 rows] times as many of a panel; with `half` only the first 16 rows.
// meanwhile: its step() runs after each step.
template <class Products, long parts = 1, class Number, class Sum, class Work>
INLINE void multiply_tiles(const Number* rows, const Number* panel, long steps, Sum* sums, bool more, bool half,
                           Work&& meanwhile) {
  constexpr long line = 64 / sizeof(Number), tile = 16 * line, block = 2 * tile;
  __asm__ volatile("" ::: "memory");  // GCC does not know that tiles are loaded from memory
  check(rows, (steps * parts * block - (half ? tile : 0)) * sizeof(Number));
  check(panel, steps * block * sizeof(Number));
  check(sums, (half ? 2 : 4) * 1024);
  Sum* low = sums + 512;  // the other 16 rows
  if (more) {
    _tile_loadd(0, sums, 128);
    _tile_loadd(1, sums + 16, 128);
  } else {
    _tile_zero(0);
    _tile_zero(1);
  }
  if (half) {
    for (long k = 0; k < steps; k++, panel += block) {
      _tile_stream_loadd(6, panel, 128);
      _tile_stream_loadd(7, panel + line, 128);
#pragma GCC unroll 3
      for (long i = 0; i < parts; i++, rows += block) {
        _tile_loadd(4, rows, 64);
        Products::upper();
      }
      meanwhile.step();
    }
  } else {
    if (more) {
      _tile_loadd(2, low, 128);
      _tile_loadd(3, low + 16, 128);
    } else {
      _tile_zero(2);
      _tile_zero(3);
    }
    for (long k = 0; k < steps; k++, panel += block) {
      _tile_stream_loadd(6, panel, 128);
      _tile_stream_loadd(7, panel + line, 128);
#pragma GCC unroll 3
      for (long i = 0; i < parts; i++, rows += block) {
        _tile_loadd(4, rows, 64);
        _tile_loadd(5, rows + tile, 64);
        Products::upper();
        Products::lower();
      }
      meanwhile.step();
    }
    _tile_stored(2, low, 128);
    _tile_stored(3, low + 16, 128);
  }
  _tile_stored(0, sums, 128);
  _tile_stored(1, sums + 16, 128);
}

}  // namespace ISA
