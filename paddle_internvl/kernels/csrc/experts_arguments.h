// Arguments of a mixture of experts (the sparse MLP of Qwen3-MoE): router, and experts with stacked weights.
#pragma once
#include <cstdint>

#include "linear_arguments.h"

// out += sum over a row's chosen experts e of weight * down_e(silu(gate_e(x)) * up_e(x))
struct Experts {
  Weight gate_up;  // [D, 2 I] of expert 0: the columns of gate, then those of up; the other experts' follow
  Weight down;     // [I, D] of expert 0; the other experts' follow
  int64_t count = 0;  // E
  const float* x = nullptr;  // [M, D]
  float* out = nullptr;      // [M, D], other memory than x
  const int32_t* chosen = nullptr;  // [M, top], each in [0, E), or negative: none
  const float* weights = nullptr;   // [M, top]
  int64_t M = 0, top = 0;
};

// Softmax over all experts' logits, and the `top` largest of every row, the largest first.
struct Router {
  const float* logits = nullptr;  // [M, E]
  int32_t* chosen = nullptr;      // [M, top]
  float* weights = nullptr;       // [M, top]
  int64_t count = 0, top = 0;     // E
  bool normalised = false;        // a row's weights are divided by their sum
};
