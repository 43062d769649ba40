// The kernels of int8 products for machines with AVX-VNNI and no AVX512.
#include "int8.h"
#if defined(WITH_AVX_VNNI)
#include <immintrin.h>
#include <omp.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "dispatch.h"
#pragma GCC target("avx2,fma,avxvnni")
#define ISA avx_vnni
#define LANES 8
#include "simd.h"
#include "panels.h"
#define INT8_NAME "avx_vnni"
#define INT8_MULTIPLY "int8_vnni.h"
#include "int8_instance.h"
#endif
