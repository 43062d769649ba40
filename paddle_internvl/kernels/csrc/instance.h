// All kernels for one instruction set: included by isa_*.cc, each with its own ISA and LANES.
#include "dispatch.h"
#include "simd.h"
// kernels, each header on its own
#include "linear.h"
#include "attention.h"
#include "pointwise.h"
#include "experts.h"
#include "layers.h"
#include "layers_vision.h"
#include "limits.h"

namespace ISA {

extern const Kernels table;
const Kernels table = {
    NAME,
    linear, attention, norm, turn, elements, experts, decoder_layer, vision_layer, projector, flops, reading,
};

}  // namespace ISA
