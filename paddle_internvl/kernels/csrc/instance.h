// All kernels for one instruction set: included by isa_*.cc, each with its own ISA and LANES.
#include "dispatch.h"
#include "float32.h"
#include "attention_grad.h"
#include "limits.h"

namespace ISA {

extern const Kernels table;
const Kernels table = {
    NAME,
    linear, attention, attention_grad, norm, turn, elements, experts, decoder_layer, vision_layer, projector, flops, reading,
};

}  // namespace ISA
