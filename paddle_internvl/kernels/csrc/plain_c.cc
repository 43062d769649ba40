// The library's functions in plain C, for Python's ctypes. None throws.
#include <cstdint>
#include <exception>
#include <string>

#include "bfloat16.h"
#include "dispatch.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {
thread_local std::string error;
}

// What the last call of this thread that failed had to say.
EXPORT const char* internvl_error() { return error.c_str(); }

// Name of the instruction set in use; null: the one asked for can't be used.
EXPORT const char* internvl_isa() {
  try {
    return kernels().name;
  } catch (const std::exception& e) {
    error = e.what();
    return nullptr;
  }
}

// Name of the instruction set with arithmetic in bfloat16 (bfloat16.h); "": there is none. Called where internvl_isa is not null.
EXPORT const char* internvl_bfloat16_isa() {
  const BFloat16Kernels* table = bfloat16_kernels();
  return table ? table->name : "";
}

// Name of the instructions of int8 products (int8.h).
EXPORT const char* internvl_int8_isa() { return int8_kernels().name; }

// Another instruction set; 0 where that is possible.
EXPORT int internvl_use_isa(const char* name) {
  try {
    use_isa(name);
    return 0;
  } catch (const std::exception& e) {
    error = e.what();
    return 1;
  }
}

EXPORT void internvl_set_threads(int count) { set_threads(count); }
EXPORT int internvl_threads() { return threads(); }

// Bytes that are kept between calls.
EXPORT size_t internvl_scratch_bytes() { return scratch_bytes(); }

// FLOP/s and bytes/s that this machine reaches, measured anew (limits.h).
EXPORT double internvl_flops() { return kernels().flops(); }
EXPORT double internvl_reading() { return kernels().reading(); }
