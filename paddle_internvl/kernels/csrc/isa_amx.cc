// The kernels of bfloat16 arithmetic and of int8 products for machines with AMX tiles.
#include "bfloat16.h"
#if defined(WITH_AMX)
#include <immintrin.h>
#include <omp.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <ctime>

#include "dispatch.h"
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16,amx-int8,avx2,fma")
#define ISA amx
#define NAME "amx"
#define LANES 16
#define MULTIPLY "bfloat16_amx.h"
#include "bfloat16_instance.h"
#define INT8_NAME "amx"
#define INT8_MULTIPLY "int8_amx.h"
#include "int8_instance.h"
#endif
