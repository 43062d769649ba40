// internvl_attention: softmax(q k^T / sqrt(E)) v, see attention_arguments.h.
#include <cmath>

#include "dispatch.h"
#include "places.h"

namespace {

// q [B, L, H, E]; keys and values: see places_of. total: M of every row, where totals [B] do not say.
std::vector<Tensor> AttentionForward(const Tensor& q, const Tensor& keys, const Tensor& values, const Optional& table,
                                     const Optional& totals, const Optional& mask, int64_t kv_heads, int64_t block,
                                     int64_t total, int64_t window, int64_t causal) {
  Attention a;
  a.q = heads_of(q, "q");
  a.rows = q.dims()[0];
  a.length = q.dims()[1];
  a.heads = q.dims()[2];
  a.kv_heads = kv_heads;
  a.head_dim = q.dims()[3];
  require(kv_heads > 0 && a.heads % kv_heads == 0, "heads must be a multiple of the kv heads");
  a.keys = places_of(keys, table, kv_heads, block, "keys");
  a.values = places_of(values, table, kv_heads, block, "values");
  for (const Tensor* memory : {&keys, &values}) {
    const auto& dims = memory->dims();
    require(dims[dims.size() - 1] == a.head_dim, "keys and values must have heads as long as those of q");
    require(dims.size() == 2 || (dims[0] == a.rows && dims[2] == kv_heads), "keys and values must have the rows of q");
  }
  require(!table || table->dims()[0] == a.rows, "table must have the rows of q");
  const int64_t room = table ? a.keys.width * block : std::min<int64_t>(keys.dims()[1], values.dims()[1]);
  const std::vector<int64_t> counts = totals_of(totals, total, a.rows, a.length, room);
  a.totals = counts.data();
  a.mask = mask_of(mask, counts, a.mask_width);
  a.causal = causal;
  a.window = causal ? window : 0;
  a.scale = 1.f / std::sqrt(float(a.head_dim));
  Tensor out = empty({a.rows, a.length, a.heads, a.head_dim});
  a.out = {out.data<float>(), a.length * a.heads * a.head_dim, a.heads * a.head_dim, a.head_dim};
  if (out.numel()) kernels().attention(a);
  return {out};
}

}  // namespace

PD_BUILD_OP(internvl_attention)
    .Inputs({"Q", "Keys", "Values", paddle::Optional("Table"), paddle::Optional("Totals"), paddle::Optional("Mask")})
    .Outputs({"Out"})
    .Attrs({"kv_heads: int64_t", "block: int64_t", "total: int64_t", "window: int64_t", "causal: int64_t"})
    .SetKernelFn(PD_KERNEL(AttentionForward));
