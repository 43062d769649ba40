// Peaks of the dot product instructions, for benchmarks: VNNI, avx512_bf16, AMX tiles. No kernel depends on this file.
//
// In: a kind. Out: operations a second of all threads together (a multiplication and an addition are two), by the
// clock; of one thread by its own CPU time. 0: the machine, its system or this compiler lacks the instruction.
#include <omp.h>

#include <ctime>

#include "amx_tiles.h"
#include "dispatch.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

#if defined(__x86_64__) && (__GNUC__ >= 11 || __clang_major__ >= 12)
#include <immintrin.h>

namespace {

constexpr int kChains = 12;  // enough of them that none waits for its last result
constexpr long kRounds = 1000000, kTileRounds = 100000;

double now() {
  if (threads() > 1) return omp_get_wtime();
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec + time.tv_nsec * 1e-9;
}

__attribute__((target("avx512f,avx512vnni"))) void vnni() {
  __m512i sums[kChains];
  for (int i = 0; i < kChains; i++) sums[i] = _mm512_set1_epi32(i);
  const __m512i a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(2);
  for (long round = 0; round < kRounds; round++)
#pragma GCC unroll 12
    for (int i = 0; i < kChains; i++) sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
  for (int i = 1; i < kChains; i++) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
  volatile int kept = _mm512_cvtsi512_si32(sums[0]);
  (void)kept;
}

__attribute__((target("avx512f,avx512bf16"))) void bfloat16() {
  __m512 sums[kChains];
  for (int i = 0; i < kChains; i++) sums[i] = _mm512_set1_ps(float(i));
  const __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f80), b = a;
  for (long round = 0; round < kRounds; round++)
#pragma GCC unroll 12
    for (int i = 0; i < kChains; i++) sums[i] = _mm512_dpbf16_ps(sums[i], a, b);
  for (int i = 1; i < kChains; i++) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  volatile float kept = _mm512_cvtss_f32(sums[0]);
  (void)kept;
}

__attribute__((target("amx-tile,amx-bf16,amx-int8"))) void tiles(bool integers) {
  _tile_loadconfig(&kTileLayout);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (long round = 0; round < kTileRounds; round++)
    if (integers) {
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    } else {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  _tile_release();
}

}  // namespace

EXPORT double internvl_dots(int kind) {
  if (kind < 0 || kind > 3 || !has_dots(Dots(kind))) return 0;
  const bool tiled = kind >= 2;
  const double began = now();
#pragma omp parallel num_threads(threads())
  {
    if (tiled) tiles(kind == 3);
    else if (kind == 1) bfloat16();
    else vnni();
  }
  const double seconds = now() - began;
  const double of_round[] = {kChains * 16 * 4, kChains * 16 * 2, 4 * 16 * 16 * 32, 4 * 16 * 16 * 64};
  return 2.0 * of_round[kind] * (tiled ? kTileRounds : kRounds) * threads() / seconds;
}

#else
EXPORT double internvl_dots(int) { return 0; }
#endif
