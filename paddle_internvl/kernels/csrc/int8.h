// Products in int8: activations become whole numbers of 8 bits with a scale for each row, weights of 8 or 4 bits become
// whole numbers of 8 bits with a scale for each column, sums are int32 and exact. No Paddle here.
//
// A row x: scale = max|x| / 127, numbers rounded to nearest, ties to even. A weight with one scale for a column and no
// offsets: its own integers. Groups of scales: int8_panels.h. Every instance has the same integers.
#pragma once
#include "linear_arguments.h"

#if defined(__x86_64__) && defined(__has_include)
#if __has_include(<avx512vnniintrin.h>)
#define WITH_AVX512_VNNI
#endif
#if __has_include(<avxvnniintrin.h>)
#define WITH_AVX_VNNI
#endif
#endif

struct Int8Kernels {
  const char* name;                // of the instructions
  void (*linear)(const Linear&);   // of an int8 or int4 weight, of rows in x, at most 65,536 inputs
};

// The table for this machine and PADDLE_INTERNVL_ISA. The first call asks the system for the tiles of AMX.
const Int8Kernels& int8_kernels();
