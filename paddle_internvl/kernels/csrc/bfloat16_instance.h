// The kernels of bfloat16 arithmetic for one instruction set: included by isa_amx.cc and isa_avx512_bf16.cc, each with its
// own ISA, NAME, and MULTIPLY, the header with its product of blocks.
#include "bfloat16.h"
#include "float32.h"  // norms, rotary embedding, attention of few queries
// kernels, each header on its own
#include "bfloat16_blocks.h"
#include MULTIPLY
#include "epilogue.h"
#include "bfloat16_linear.h"
#ifdef TILES
#include "split_many.h"
#endif
#include "bfloat16_attention.h"
#include "bfloat16_layers.h"

namespace ISA {

extern const BFloat16Kernels halved_table;
const BFloat16Kernels halved_table = {NAME, linear_halved, attention_halved, decoder_layer_halved, vision_layer_halved,
                                      projector_halved};

}  // namespace ISA
