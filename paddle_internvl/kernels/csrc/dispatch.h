// The table of kernels, one for each instruction set, and the choice between them. No Paddle here.
//
// How an operator is added:
//   1. its arguments, plain numbers and pointers, as a struct in a header of its own (linear_arguments.h is one);
//   2. the kernel in a header (linear.h is one), written against simd.h, everything in `namespace ISA` and static, with
//      no templates or inline functions of the standard library, which the linker would share between instruction sets;
//   3. a field in Kernels below, and the header and the field in instance.h;
//   4. the operator in operators_*.cc: checks shapes and types, makes the outputs, calls kernels().name(arguments);
//   5. a driver for it in sanitize.cc, and a test against its plain twin in tests/kernels.
// Every *.cc of this folder but sanitize.cc is built into the library.
#pragma once
#include <cstddef>

#include "attention_arguments.h"
#include "experts_arguments.h"
#include "int8.h"
#include "layer_arguments.h"
#include "linear_arguments.h"
#include "pointwise_arguments.h"

struct Kernels {
  const char* name;  // of the instruction set
  void (*linear)(const Linear&);
  void (*attention)(const Attention&);
  void (*attention_grad)(const AttentionGrad&);
  void (*norm)(const Norm&);
  void (*turn)(const Turn&);
  void (*elements)(const Elements&);
  void (*experts)(const Experts&);
  void (*decoder_layer)(const DecoderLayer&, const DecoderCall&);
  void (*vision_layer)(const VisionLayer&, const VisionCall&);
  void (*projector)(const Projector&, const ProjectorCall&);
  double (*flops)();    // FLOP/s of the machine, measured
  double (*reading)();  // bytes/s
};

// The table for this machine; PADDLE_INTERNVL_ISA=amx|avx512_bf16|avx512|avx2|plain takes another. Throws
// std::runtime_error where that one is unknown or can't run here. The first two add arithmetic in bfloat16 (bfloat16.h);
// float32 arithmetic of avx512_bf16 is that of avx512.
const Kernels& kernels();

// Takes the table of that name from now on ("" for the machine's best); throws as above.
void use_isa(const char* name);

// Instructions for dot products, and whether the machine and its system have one. The first question about tiles asks the
// system for their registers.
enum class Dots { kVnni, kBFloat16, kTilesBFloat16, kTilesInt8 };
bool has_dots(Dots kind);

// Threads that kernels use: what was set last, else OpenMP's own number.
int threads();
void set_threads(int count);

// Memory of this thread, kept between calls: at least `floats` of it, 64-byte aligned, contents undefined. Slots are
// separate pieces; a kernel that calls another must not use its slots.
enum Slot { kLinearRows, kLinearPanels, kLinearSums, kLinearDigits, kAttention1, kAttention2, kAttention3, kLayer1, kLayer2, kLayer3,
            kLayer4, kHidden1, kHidden2, kExperts1, kExperts2, kExperts3, kExperts4, kExperts5, kLimits, kSlots };
float* scratch(Slot slot, size_t floats);

// Bytes of it, of all threads together.
size_t scratch_bytes();
