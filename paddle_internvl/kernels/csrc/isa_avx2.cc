// The kernels for machines with AVX2.
#if defined(__x86_64__)
#include <immintrin.h>
#include <omp.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <ctime>

#include "dispatch.h"
#pragma GCC target("avx2,fma")
#define ISA avx2
#define NAME "avx2"
#define LANES 8
#include "instance.h"
#endif
