// The kernels for machines with AMX tiles, in float32 and in bfloat16, and int8 products.
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
#define TILES
#define MULTIPLY "bfloat16_amx.h"
#include "instance.h"
#include "bfloat16_instance.h"
#define INT8_NAME "amx"
#define INT8_MULTIPLY "int8_amx.h"
#include "int8_instance.h"
#endif
