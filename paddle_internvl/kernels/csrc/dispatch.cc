// Which table of kernels runs here, threads, and memory kept between calls.
#include "dispatch.h"

#include <omp.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>

namespace avx512 { extern const Kernels table; }
namespace avx2 { extern const Kernels table; }
namespace plain { extern const Kernels table; }

namespace {

const Kernels* find(const std::string& name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && (name.empty() || name == "avx512")) return &avx512::table;
  if (avx2 && (name.empty() || name == "avx2")) return &avx2::table;
#endif
  if (name.empty() || name == "plain") return &plain::table;
  const bool known = name == "avx512" || name == "avx2";
  throw std::runtime_error("PADDLE_INTERNVL_ISA=" + name + (known ? " can't run on this machine" : " is not known") +
                           "; use one of avx512, avx2, plain");
}

std::atomic<const Kernels*> chosen{nullptr};
std::atomic<int> count{0};
std::atomic<size_t> kept{0};

struct Memory {
  float* at = nullptr;
  size_t bytes = 0;
  ~Memory() {
    std::free(at);
    kept -= bytes;
  }
};
thread_local Memory memories[kSlots];

}  // namespace

void use_isa(const char* name) { chosen = find(name); }

const Kernels& kernels() {
  const Kernels* table = chosen;
  if (!table) {
    const char* wanted = std::getenv("PADDLE_INTERNVL_ISA");
    chosen = table = find(wanted ? wanted : "");
  }
  return *table;
}

int threads() { return count ? count.load() : omp_get_max_threads(); }
void set_threads(int n) { count = n; }

float* scratch(Slot slot, size_t floats) {
  Memory& memory = memories[slot];
  if (memory.bytes < floats * sizeof(float)) {
    const size_t page = floats * sizeof(float) < (1 << 20) ? 4096 : 2 << 20;
    const size_t bytes = (floats * sizeof(float) + page - 1) / page * page;
    std::free(memory.at);
    kept -= memory.bytes;
    memory.at = nullptr;
    memory.bytes = 0;
    memory.at = static_cast<float*>(std::aligned_alloc(page, bytes));
    if (!memory.at) throw std::bad_alloc();
    memory.bytes = bytes;
    kept += bytes;
    if (page > 4096) madvise(memory.at, bytes, MADV_HUGEPAGE);
  }
  return memory.at;
}

size_t scratch_bytes() { return kept; }
