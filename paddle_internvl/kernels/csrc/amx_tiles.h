// The layout of AMX's tiles that all users of them load: eight of 16 rows x 64 bytes.
#pragma once
#include <cstdint>

struct alignas(64) TileLayout {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Static: GCC 12 does not know that _tile_loadconfig reads all of it, and drops what is written to a local one.
static const TileLayout kTileLayout = {};
