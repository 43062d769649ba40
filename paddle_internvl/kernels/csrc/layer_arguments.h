// What a whole layer of the decoder or of the vision tower is told: its weights, and one call.
//
// Python fills these structs through ctypes (kernels/structs.py has the same fields in the same order).
#pragma once
#include "attention_arguments.h"
#include "experts_arguments.h"
#include "linear_arguments.h"

// A linear layer: x W + bias, the bias null where there is none.
struct Dense {
  Weight weight;
  const float* bias = nullptr;
};

// Sparse MLP of a decoder layer: a router, and experts whose weights are stacked (experts_arguments.h).
struct SparseMLP {
  Dense router, gate_up, down;  // of E columns; of expert 0
  int64_t count = 0, top = 0;   // E; 0: the layer has a dense MLP
  int64_t normalised = 0;       // whether the weights of the chosen experts are divided by their sum
};

// x += o(attention(q, k, v of norm(x))); x += down(silu(gate) * up of norm(x)), or the sum of the chosen experts
struct DecoderLayer {
  Dense q, k, v, o, down;
  Dense gate, up;           // of F columns each
  SparseMLP sparse;         // in place of down, gate and up
  const float *norm1 = nullptr, *norm2 = nullptr;    // RMSNorm weights [D]
  const float *q_norm = nullptr, *k_norm = nullptr;  // RMSNorm weights [E] of each head, before rope; null: none
  int64_t width = 0, heads = 0, kv_heads = 0, head_dim = 0, features = 0, window = 0;  // D, H, K, E, F; 0: no window
  float eps1 = 0, eps2 = 0;
  int64_t bfloat16 = 0;  // arithmetic in bfloat16 (bfloat16.h), else float32
};

struct DecoderCall {
  const float* x = nullptr;  // [B, L, D]
  float* out = nullptr;      // [B, L, D], other memory than x
  const float *cosines = nullptr, *sines = nullptr;  // [B, L, E]
  Places keys, values;              // new ones are written at each row's last L positions
  const int64_t* totals = nullptr;  // [B]: positions of a row, new ones included
  const uint8_t* mask = nullptr;    // [B, mask_width]
  int64_t mask_width = 0, rows = 0, length = 0;  // B, L
  int64_t last_only = 0;  // of the output only each row's last position is wanted: out is [B, D]
};

// x += scale1 * proj(attention(qkv(norm1(x)))); x += scale2 * fc2(gelu(fc1(norm2(x))))
struct VisionLayer {
  Dense qkv, proj, fc1, fc2;
  const float *norm1 = nullptr, *norm1_bias = nullptr, *norm2 = nullptr, *norm2_bias = nullptr;
  const float *q_norm = nullptr, *k_norm = nullptr;  // RMSNorm over all heads together; null: none
  const float *scale1 = nullptr, *scale2 = nullptr;  // [C]
  int64_t width = 0, heads = 0, features = 0;        // C, H, F
  int64_t centred = 0;                               // LayerNorm, else RMSNorm
  float eps = 0;
  int64_t bfloat16 = 0;  // see DecoderLayer
};

struct VisionCall {
  const float* x = nullptr;  // [T, P, C]
  float* out = nullptr;      // [T, P, C], other memory than x
  int64_t tiles = 0, length = 0;
};

// Visual tokens of a hidden state: fc2(gelu(fc1(layer norm(pixel shuffle(x without class token)))))
struct Projector {
  Dense fc1, fc2;                                    // [merge^2 C, D], [D, D]
  const float *norm = nullptr, *norm_bias = nullptr;  // [merge^2 C]
  int64_t width = 0, merge = 0;                      // C, patches along the side of a token
  int64_t transposed = 0;                            // pixel shuffle v1: the grid of tokens by columns
  float eps = 0;
  int64_t bfloat16 = 0;  // see DecoderLayer
};

struct ProjectorCall {
  const float* x = nullptr;  // [T, 1 + side^2, C]
  float* out = nullptr;      // [T, (side / merge)^2, D]
  int64_t tiles = 0, side = 0;
};
