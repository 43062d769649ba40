// Whole layers as functions in plain C: for Python's ctypes, which calls them in a microsecond.
//
// Each returns null, or what went wrong. Whoever calls has checked the shapes (kernels/layers.py does).
#include <exception>
#include <string>

#include "dispatch.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

thread_local std::string error;

template <class Work>
const char* told(Work work) {
  try {
    work();
    return nullptr;
  } catch (const std::exception& e) {
    error = e.what();
    return error.c_str();
  }
}

}  // namespace

EXPORT const char* internvl_decoder_layer(const DecoderLayer* layer, const DecoderCall* call) {
  return told([&] { kernels().decoder_layer(*layer, *call); });
}

EXPORT const char* internvl_vision_layer(const VisionLayer* layer, const VisionCall* call) {
  return told([&] { kernels().vision_layer(*layer, *call); });
}

// Bytes of the structs, which Python's must have too.
EXPORT int64_t internvl_size_of(int which) {
  const size_t sizes[] = {sizeof(DecoderLayer), sizeof(DecoderCall), sizeof(VisionLayer), sizeof(VisionCall)};
  return sizes[which];
}
