// Vectors of floats: what a kernel is written against. Included once per instruction set, by isa_*.cc.
//
// In: ISA, the name of the namespace, and LANES, the floats of a vector (16, 8 or 4). Out: V, I, loads of every weight
// kind, arithmetic by the operators +, -, *, /, <, ?: of the compiler's own vector types, and exp, erf and sigmoid.
// Everything is static in namespace ISA: nothing compiled for one instruction set can be taken for another.
#include <cstddef>
#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

namespace ISA {

typedef float V __attribute__((vector_size(4 * LANES)));
typedef int32_t I __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef int8_t Bytes __attribute__((vector_size(LANES)));
typedef uint8_t Unsigned __attribute__((vector_size(LANES)));

template <class Vector>
INLINE Vector raw(const void* p) {
  Vector v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

INLINE V zero() { return V{}; }
INLINE V set(float x) { return x - V{}; }
INLINE V load(const float* p) { return raw<V>(p); }
INLINE void store(float* p, V v) { __builtin_memcpy(p, &v, sizeof v); }

// The first n of LANES floats; the others are zero, or left as they are.
INLINE V load_first(const float* p, long n) {
  V v{};
  for (long i = 0; i < n; i++) v[i] = p[i];
  return v;
}
INLINE void store_first(float* p, V v, long n) {
  for (long i = 0; i < n; i++) p[i] = v[i];
}

INLINE V as_floats(I bits) { return (V)bits; }
INLINE I as_bits(V v) { return (I)v; }
INLINE I integers(int32_t x) { return x - I{}; }
INLINE V fma(V a, V b, V c) { return a * b + c; }  // one instruction where there is one: -ffp-contract=fast
INLINE V max(V a, V b) { return a > b ? a : b; }   // b where a is NaN
INLINE V min(V a, V b) { return a < b ? a : b; }
INLINE V absolute(V v) { return as_floats(as_bits(v) & integers(0x7fffffff)); }

// LANES bytes as whole numbers. The compiler's own conversion goes through every width between, four times as slow.
#if LANES == 16 && defined(__x86_64__)
INLINE I whole(const int8_t* p) { return (I)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)); }
INLINE I whole(const uint8_t* p) { return (I)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)); }
#elif LANES == 8 && defined(__x86_64__)
INLINE I whole(const int8_t* p) { return (I)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)); }
INLINE I whole(const uint8_t* p) { return (I)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)); }
#else
INLINE I whole(const int8_t* p) { return __builtin_convertvector(raw<Bytes>(p), I); }
INLINE I whole(const uint8_t* p) { return __builtin_convertvector(raw<Unsigned>(p), I); }
#endif

// Weights as floats: float32, bfloat16 (the upper half of a float32), int8. Exact.
INLINE V load(const uint16_t* p) { return as_floats(__builtin_convertvector(raw<Halves>(p), I) << 16); }
INLINE V load(const int8_t* p) { return __builtin_convertvector(whole(p), V); }

// Two numbers of 4 bits (-8..7) in each of LANES bytes: those of the low halves and those of the high ones.
INLINE void load_nibbles(const uint8_t* p, V& low, V& high) {
  I both = whole(p);
#if LANES == 16 && defined(__x86_64__)
  const V table = {0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1};
  low = (V)_mm512_permutexvar_ps((__m512i)both, (__m512)table);  // takes the index from the lowest four bits
  high = (V)_mm512_permutexvar_ps((__m512i)(both >> 4), (__m512)table);
#else
  low = __builtin_convertvector((both << 28) >> 28, V);
  high = __builtin_convertvector((both << 24) >> 28, V);
#endif
}

// Rows and columns of LANES vectors change places: in every step blocks of `side` across the diagonal do.
INLINE void transpose(V rows[LANES]) {
#pragma GCC unroll 4
  for (int side = 1; side < LANES; side *= 2) {
    I keep, take;
#pragma GCC unroll 16
    for (int lane = 0; lane < LANES; lane++) {
      keep[lane] = lane & side ? LANES + (lane ^ side) : lane;
      take[lane] = lane & side ? LANES + lane : lane ^ side;
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) {
      if (i & side) continue;
      const V above = rows[i], below = rows[i | side];
      rows[i] = __builtin_shuffle(above, below, keep);
      rows[i | side] = __builtin_shuffle(above, below, take);
    }
  }
}

INLINE float sum(V v) {
  float part[LANES];
  store(part, v);
  for (int width = LANES / 2; width; width /= 2)
    for (int i = 0; i < width; i++) part[i] += part[i + width];
  return part[0];
}
INLINE float largest(V v) {
  float part[LANES];
  store(part, v);
  for (int width = LANES / 2; width; width /= 2)
    for (int i = 0; i < width; i++) part[i] = part[i] > part[i + width] ? part[i] : part[i + width];
  return part[0];
}
INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }
INLINE void prefetch_to_write(const void* p) { __builtin_prefetch(p, 1); }

// p * 2^n for whole n, |n| <= 252, through denormals to zero.
INLINE V scaled(V p, V n) {
#if LANES == 16 && defined(__x86_64__)
  return (V)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  I power = __builtin_convertvector(n, I), half = power >> 1;
  return p * as_floats((half + 127) << 23) * as_floats((power - half + 127) << 23);
#endif
}

// e^x to 2 units in the last place; 0 below -104, infinity above 88.73, NaN stays NaN.
INLINE V exp(V x) {
  V bounded = x < set(-105.f) ? set(-105.f) : x;
  bounded = bounded > set(89.f) ? set(89.f) : bounded;
  const V magic = set(12582912.f);  // 1.5 * 2^23: adding it rounds to a whole number
  V n = fma(bounded, set(1.44269504f), magic) - magic;
  V r = fma(n, set(-0.693359375f), bounded);
  r = fma(n, set(2.12194440e-4f), r);
  V p = set(1.9875691500e-4f);  // Cephes' expf
  p = fma(p, r, set(1.3981999507e-3f));
  p = fma(p, r, set(8.3334519073e-3f));
  p = fma(p, r, set(4.1665795894e-2f));
  p = fma(p, r, set(1.6666665459e-1f));
  p = fma(p, r, set(5.0000001201e-1f));
  p = fma(p * r, r, r + set(1.f));
  return scaled(p, n);
}

// 2^x to 2 units in the last place; 0 below -150, NaN stays NaN. x: at most 126.
INLINE V exp2(V x) {
  const V bounded = x < set(-150.f) ? set(-150.f) : x;
  const V magic = set(12582912.f);  // as above
  const V n = bounded + magic - magic, r = bounded - n;
  V p = set(1.534578874e-4f);  // fitted for the smallest relative error on -0.5..0.5
  p = fma(p, r, set(1.339995783e-3f));
  p = fma(p, r, set(9.618489247e-3f));
  p = fma(p, r, set(5.550328711e-2f));
  p = fma(p, r, set(2.402264689e-1f));
  p = fma(p, r, set(6.931472058e-1f));
  p = fma(p, r, set(1.f));
  return scaled(p, n);
}

// The error function; relative error at most 4e-7.
INLINE V erf(V x) {
  V bounded = x < set(-4.f) ? set(-4.f) : x;
  bounded = bounded > set(4.f) ? set(4.f) : bounded;
  const V z = bounded * bounded;
  V p = set(1.90663091e-8f);  // x P(x^2) / Q(x^2), fitted for the smallest relative error on 0..4
  p = fma(p, z, set(-1.94113673e-6f));
  p = fma(p, z, set(1.47534174e-4f));
  p = fma(p, z, set(4.00483645e-3f));
  p = fma(p, z, set(5.15730042e-2f));
  p = fma(p, z, set(2.07487280e-1f));
  p = fma(p, z, set(1.12837909f));
  V q = set(1.02424585e-3f);
  q = fma(q, z, set(1.49884052e-2f));
  q = fma(q, z, set(1.18120366e-1f));
  q = fma(q, z, set(5.17212063e-1f));
  q = fma(q, z, set(1.f));
  const V y = bounded * p / q;
  const V upto = x >= set(4.f) ? set(1.f) : y;  // exactly: gelu multiplies what is left of 1 - erf by x
  return x <= set(-4.f) ? set(-1.f) : upto;
}

INLINE V gelu(V x) {
  const V half = x * set(0.5f);
  return fma(half, erf(x * set(0.70710678f)), half);
}
INLINE V sigmoid(V x) { return set(1.f) / (set(1.f) + exp(-x)); }
INLINE V silu(V x) { return x / (set(1.f) + exp(-x)); }

}  // namespace ISA
