// Which table of kernels runs here, threads, and memory kept between calls.
#include "dispatch.h"
#include "bfloat16.h"

#include <omp.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <atomic>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>

namespace avx512 { extern const Kernels table; }
namespace avx2 { extern const Kernels table; }
namespace plain { extern const Kernels table; extern const Int8Kernels int8_table; }
namespace amx { extern const Kernels table; extern const BFloat16Kernels halved_table; extern const Int8Kernels int8_table; }
namespace avx512_bf16 { extern const BFloat16Kernels halved_table; }
namespace avx512_vnni { extern const Int8Kernels int8_table; }
namespace avx_vnni { extern const Int8Kernels int8_table; }

namespace {

#if defined(__x86_64__)
// Bit `bit` of a register (0-3: eax, ebx, ecx, edx) of CPUID's leaf 7.
bool has(unsigned subleaf, int which, int bit) {
  unsigned registers[4] = {};
  return __get_cpuid_count(7, subleaf, registers, registers + 1, registers + 2, registers + 3) && registers[which] >> bit & 1;
}

// Whether AMX's tiles can be used: the system allows a process to have their registers when it asks.
bool has_tiles() {
  constexpr int kRequestPermission = 0x1023, kTiles = 18;  // arch_prctl(2)
  return has(0, 3, 24) && syscall(SYS_arch_prctl, kRequestPermission, kTiles) == 0;
}

bool has_avx512() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

// The table of bfloat16 arithmetic of that name, or the machine's best; null: there is none.
const BFloat16Kernels* find_halves(const std::string& name) {
#if defined(WITH_AVX512_BF16)
  if (!has_avx512() || !has_dots(Dots::kBFloat16)) return nullptr;
#if defined(WITH_AMX)
  if ((name.empty() || name == "amx") && has_dots(Dots::kTilesBFloat16) && has_dots(Dots::kTilesInt8)) return &amx::halved_table;
#endif
  if (name.empty() || name == "avx512_bf16") return &avx512_bf16::halved_table;
#endif
  return nullptr;
}

const Kernels* find(const std::string& name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && has_avx512();
#if defined(WITH_AMX)
  if ((name.empty() || name == "amx") && avx512 && find_halves("amx")) return &amx::table;
#endif
  const bool dots = name == "avx512_bf16";  // whose float32 arithmetic is that of avx512
  if (avx512 && (name.empty() || name == "avx512" || (dots && find_halves(name)))) return &avx512::table;
  if (avx2 && (name.empty() || name == "avx2")) return &avx2::table;
#endif
  if (name.empty() || name == "plain") return &plain::table;
  const bool known = name == "amx" || name == "avx512_bf16" || name == "avx512" || name == "avx2";
  throw std::runtime_error("PADDLE_INTERNVL_ISA=" + name + (known ? " can't run on this machine" : " is not known") +
                           "; use one of amx, avx512_bf16, avx512, avx2, plain");
}

// The table of int8 products for the instruction set of that name: the best of its instructions that the machine has.
const Int8Kernels* find_int8(const std::string& name) {
#if defined(WITH_AMX)
  if ((name.empty() || name == "amx") && has_avx512() && has_dots(Dots::kTilesInt8)) return &amx::int8_table;
#endif
#if defined(WITH_AVX512_VNNI)
  if (name != "avx2" && name != "plain" && has_avx512() && has_dots(Dots::kVnni)) return &avx512_vnni::int8_table;
#endif
#if defined(WITH_AVX_VNNI)
  if (name != "plain" && __builtin_cpu_supports("avx2") && has(1, 0, 4)) return &avx_vnni::int8_table;
#endif
  return &plain::int8_table;
}

std::string requested() {
  const char* name = std::getenv("PADDLE_INTERNVL_ISA");
  return name ? name : "";
}

std::atomic<const Kernels*> chosen{nullptr};
std::atomic<const BFloat16Kernels*> chosen_halves{nullptr};
std::atomic<const Int8Kernels*> chosen_int8{nullptr};
std::atomic<bool> halves_found{false};
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

bool has_dots(Dots kind) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  switch (kind) {
    case Dots::kVnni: return __builtin_cpu_supports("avx512f") && has(0, 2, 11);
    case Dots::kBFloat16: return __builtin_cpu_supports("avx512f") && has(1, 0, 5);
    case Dots::kTilesBFloat16: return has(0, 3, 22) && has_tiles();
    case Dots::kTilesInt8: return has(0, 3, 25) && has_tiles();
  }
#endif
  return false;
}

void use_isa(const char* name) {
  chosen = find(name);
  chosen_halves = find_halves(name);
  chosen_int8 = find_int8(name);
  halves_found = true;
}

const Kernels& kernels() {
  const Kernels* table = chosen;
  if (!table) chosen = table = find(requested());
  return *table;
}

const BFloat16Kernels* bfloat16_kernels() {
  if (!halves_found) {
    const std::string name = requested();
    find(name);  // throws where it is not known
    chosen_halves = find_halves(name);
    halves_found = true;
  }
  return chosen_halves;
}

const Int8Kernels& int8_kernels() {
  const Int8Kernels* table = chosen_int8;
  if (!table) chosen_int8 = table = find_int8(requested());
  return *table;
}

const BFloat16Kernels& require_bfloat16() {
  const BFloat16Kernels* table = bfloat16_kernels();
  if (!table) throw std::runtime_error("this instruction set has no arithmetic in bfloat16");
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
