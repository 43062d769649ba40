// What attention is told: shapes, distances, where keys and values lie. All distances are in floats.
#pragma once
#include <cstdint>

// Keys or values of one layer. Position p of kv head h of row b begins at
//   base + table[b * width + p / block] * block_stride + h * head_stride + (p % block) * position_stride
// and its E numbers lie side by side. A tensor [B, M, K, E] is one block of M positions for each row.
struct Places {
  float* base = nullptr;
  const int64_t* table = nullptr;  // [B, width]; null: row b is block b
  int64_t width = 0, block = 0, block_stride = 0, head_stride = 0, position_stride = 0;
};

// A tensor [B, L, H, E] whose heads may lie between other things: distances between rows, positions and heads.
struct Heads {
  float* base = nullptr;
  int64_t row = 0, position = 0, head = 0;
};

// out = softmax(scale q k^T) v. The L queries of a row are the last L of its keys.
struct Attention {
  Heads q, out;
  Places keys, values;
  int64_t rows = 0, length = 0, heads = 0, kv_heads = 0, head_dim = 0;  // B, L, H, K, E
  const int64_t* totals = nullptr;  // [B]: keys of each row, at least L
  const uint8_t* mask = nullptr;    // [B, mask_width], 0: a key that nobody sees; null: none is hidden
  int64_t mask_width = 0;
  int64_t window = 0;   // with causal: of the keys up to its own a query sees this many last ones; 0: all of them
  bool causal = false;  // a query sees no key behind its own
  float scale = 1;
};

// Gradients of out: of q, and of the keys and values of every query head by itself, [B, M, H, E].
struct AttentionGrad {
  Attention forward;  // without out
  Heads grad;         // of out
  Heads q, keys, values;
};
