// The kernels in plain C++, for any machine.
#include <omp.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <ctime>

#define ISA plain
#define NAME "plain"
#define LANES 4
#include "instance.h"
#define INT8_NAME "plain"
#define INT8_MULTIPLY "int8_loops.h"
#include "int8_instance.h"
