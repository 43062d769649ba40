// Arithmetic in bfloat16: what goes into a product or attention is rounded to bfloat16 (to nearest, ties to even), sums
// are float32. Norms, softmax, activations and the residual stream stay float32. No Paddle here.
//
// Two instances: AMX tiles, and the dot products of AVX512-BF16. A compiler without them builds neither.
#pragma once
#include "attention_arguments.h"
#include "layer_arguments.h"
#include "linear_arguments.h"

#if defined(__x86_64__) && defined(__has_include)
#if __has_include(<avx512bf16intrin.h>)
#define WITH_AVX512_BF16
#endif
#if __has_include(<amxbf16intrin.h>)
#define WITH_AMX
#endif
#endif

// Rows, at most, of products and decoder layers that stay float32: reading the weights takes as long.
constexpr int64_t kExactRows = 4;

struct BFloat16Kernels {
  const char* name;  // of the instruction set
  void (*linear)(const Linear&);
  void (*attention)(const Attention&);
  void (*decoder_layer)(const DecoderLayer&, const DecoderCall&);
  void (*vision_layer)(const VisionLayer&, const VisionCall&);
  void (*projector)(const Projector&, const ProjectorCall&);
};

// The table for this machine, null where it has no such instructions or PADDLE_INTERNVL_ISA names a set without them.
// The first call asks the system for the tiles of AMX.
const BFloat16Kernels* bfloat16_kernels();

// The same; throws std::runtime_error where there is none.
const BFloat16Kernels& require_bfloat16();
