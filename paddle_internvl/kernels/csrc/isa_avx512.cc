// The kernels for machines with AVX512.
#if defined(__x86_64__)
#include <immintrin.h>
#include <omp.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <ctime>

#include "dispatch.h"
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#define ISA avx512
#define NAME "avx512"
#define LANES 16
#include "instance.h"
#endif
