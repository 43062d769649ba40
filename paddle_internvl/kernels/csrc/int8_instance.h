// The kernels of int8 products for one set of instructions: included by isa_*.cc after simd.h and panels.h, each with its
// own ISA, INT8_NAME, and INT8_MULTIPLY, the header with its product of blocks.
#include "int8_rows.h"
#include INT8_MULTIPLY
#include "int8_panels.h"
#include "int8_linear.h"

namespace ISA {

extern const Int8Kernels int8_table;
const Int8Kernels int8_table = {INT8_NAME, int8::linear};

}  // namespace ISA
