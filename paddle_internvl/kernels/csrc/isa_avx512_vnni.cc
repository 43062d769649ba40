// The kernels of int8 products for machines with AVX512-VNNI.
#include "int8.h"
#if defined(WITH_AVX512_VNNI)
#include <immintrin.h>
#include <omp.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "dispatch.h"
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")
#define ISA avx512_vnni
#define LANES 16
#include "simd.h"
#include "panels.h"
#define INT8_NAME "avx512_vnni"
#define INT8_MULTIPLY "int8_vnni.h"
#include "int8_instance.h"
#endif
