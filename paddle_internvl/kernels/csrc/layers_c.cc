// Whole layers as functions in plain C: for Python's ctypes, which calls them in a microsecond.
//
// Each returns null, or what went wrong. Whoever calls has checked the shapes (kernels/structs.py does).
#include <exception>
#include <string>

#include "bfloat16.h"
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

// `count` layers, one after the other: each with keys and values of its own, the last with the call's last_only.
EXPORT const char* internvl_decoder_layers(const DecoderLayer* layers, int64_t count, const DecoderCall* whole,
                                           float* const* keys, float* const* values) {
  return told([&] {
    const size_t size = whole->rows * whole->length * layers->width;
    DecoderCall call = *whole;
    for (int64_t i = 0; i < count; i++) {
      call.keys.base = keys[i];
      call.values.base = values[i];
      const bool last = i + 1 == count;
      call.out = last ? whole->out : scratch(i % 2 ? kHidden1 : kHidden2, size);
      call.last_only = last && whole->last_only;
      (layers[i].bfloat16 ? require_bfloat16().decoder_layer : kernels().decoder_layer)(layers[i], call);
      call.x = call.out;
    }
  });
}

EXPORT const char* internvl_vision_layer(const VisionLayer* layer, const VisionCall* call) {
  return told([&] { (layer->bfloat16 ? require_bfloat16().vision_layer : kernels().vision_layer)(*layer, *call); });
}

EXPORT const char* internvl_projector(const Projector* projector, const ProjectorCall* call) {
  return told([&] { (projector->bfloat16 ? require_bfloat16().projector : kernels().projector)(*projector, *call); });
}

// Bytes of the structs, which Python's must have too.
EXPORT int64_t internvl_size_of(int which) {
  const size_t sizes[] = {sizeof(DecoderLayer), sizeof(DecoderCall), sizeof(VisionLayer), sizeof(VisionCall),
                          sizeof(Projector), sizeof(ProjectorCall)};
  return sizes[which];
}
