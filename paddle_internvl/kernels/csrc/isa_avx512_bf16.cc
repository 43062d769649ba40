// The kernels of bfloat16 arithmetic for machines with AVX512-BF16.
#include "bfloat16.h"
#if defined(WITH_AVX512_BF16)
#include <immintrin.h>
#include <omp.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <ctime>

#include "dispatch.h"
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")
#define ISA avx512_bf16
#define NAME "avx512_bf16"
#define LANES 16
#define MULTIPLY "bfloat16_dot.h"
#include "bfloat16_instance.h"
#endif
