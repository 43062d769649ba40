// The kernels of bfloat16 arithmetic for machines with AMX tiles of bfloat16.
#include "bfloat16.h"
#if defined(WITH_AMX)
#include <immintrin.h>
#include <omp.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <ctime>

#include "dispatch.h"
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16,avx2,fma")
#define ISA amx
#define NAME "amx"
#define LANES 16
#define MULTIPLY "bfloat16_amx.h"
#include "bfloat16_instance.h"
#endif
