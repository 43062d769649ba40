// What the machine itself can do, for benchmarks to stand beside: multiply-adds in registers, reading of memory.
//
// In: nothing. Out: FLOP/s, bytes/s, of all threads together by the clock; of one thread by its own CPU time, so that
// what others do on the machine counts less.

namespace ISA {
namespace limiting {

static double now() {
  if (threads() > 1) return omp_get_wtime();
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec + time.tv_nsec * 1e-9;
}

}  // namespace limiting

static double flops() {
  constexpr int kChains = LANES == 4 ? 6 : 12;  // enough of them that none waits for its last result
  constexpr long kRounds = 2000000;
  const double began = limiting::now();
#pragma omp parallel num_threads(threads())
  {
    V sum[kChains];
    for (int i = 0; i < kChains; i++) sum[i] = set(float(i));
    const V times = set(0.999f), plus = set(0.001f);
    for (long round = 0; round < kRounds; round++)
#pragma GCC unroll 12
      for (int i = 0; i < kChains; i++) sum[i] = fma(sum[i], times, plus);
    V total = zero();
    for (int i = 0; i < kChains; i++) total += sum[i];
    volatile float kept = ISA::sum(total);
    (void)kept;
  }
  return 2.0 * LANES * kChains * kRounds * threads() / (limiting::now() - began);
}

static double reading() {
  constexpr long kFloats = 192 << 20;  // 768 MiB: more than a cache, of which servers have 300 MB
  float* memory = scratch(kLimits, kFloats);
  memory[0] = memory[kFloats - 1] = 0;
  static thread_local bool written = false;
  if (!written) __builtin_memset(memory, 0, kFloats * sizeof(float));
  written = true;
  const double began = limiting::now();
#pragma omp parallel for schedule(static) num_threads(threads())
  for (long part = 0; part < kFloats; part += kFloats / 256) {
    V sums[4] = {};
    for (long i = part; i < part + kFloats / 256; i += 4 * LANES) {
      for (int line = 0; line < 4 * LANES; line += 16) prefetch(memory + i + line + 3072);
      for (int v = 0; v < 4; v++) sums[v] += load(memory + i + v * LANES);
    }
    volatile float kept = sum(sums[0] + sums[1] + sums[2] + sums[3]);
    (void)kept;
  }
  return kFloats * sizeof(float) / (limiting::now() - began);
}

}  // namespace ISA
