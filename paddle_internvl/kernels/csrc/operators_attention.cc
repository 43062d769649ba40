// internvl_attention: softmax(q k^T / sqrt(E)) v, see attention_arguments.h; internvl_attention_backward: its gradients.
#include <cmath>

#include "dispatch.h"
#include "places.h"

namespace {

// An Attention of q [B, L, H, E] with the memory that it points to; keys and values: see places_of. total: M of every row,
// where totals [B] do not say.
struct Call {
  Attention a;
  std::vector<int64_t> counts;

  Call(const Tensor& q, const Tensor& keys, const Tensor& values, const Optional& table, const Optional& totals,
       const Optional& mask, int64_t kv_heads, int64_t block, int64_t total, int64_t window, int64_t causal) {
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
    counts = totals_of(totals, total, a.rows, a.length, room);
    a.totals = counts.data();
    a.mask = mask_of(mask, counts, a.mask_width);
    a.causal = causal;
    a.window = causal ? window : 0;
    a.scale = 1.f / std::sqrt(float(a.head_dim));
  }
  Call(const Call&) = delete;  // a points to counts
};

Heads heads_in(Tensor& x) {
  const int64_t length = x.dims()[1], heads = x.dims()[2], e = x.dims()[3];
  return {x.data<float>(), length * heads * e, heads * e, e};
}

std::vector<Tensor> AttentionForward(const Tensor& q, const Tensor& keys, const Tensor& values, const Optional& table,
                                     const Optional& totals, const Optional& mask, int64_t kv_heads, int64_t block,
                                     int64_t total, int64_t window, int64_t causal) {
  Call call(q, keys, values, table, totals, mask, kv_heads, block, total, window, causal);
  Attention& a = call.a;
  Tensor out = empty({a.rows, a.length, a.heads, a.head_dim});
  a.out = heads_in(out);
  if (out.numel()) kernels().attention(a);
  return {out};
}

// The gradients of q [B, L, H, E], and of k and v [B, M, K, E] for every query head, [B, M, H, E]; grad: of the result.
std::vector<Tensor> AttentionBackward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& grad,
                                      const Optional& mask, int64_t window, int64_t causal) {
  require(k.dims().size() == 4, "k must be [B, M, K, E]");
  const int64_t total = k.dims()[1];
  Call call(q, k, v, Optional(), Optional(), mask, k.dims()[2], 0, total, window, causal);
  Attention& a = call.a;
  require(grad.dims() == q.dims(), "the gradient must have the shape of q");
  Tensor grad_q = empty({a.rows, a.length, a.heads, a.head_dim});
  Tensor grad_k = empty({a.rows, total, a.heads, a.head_dim}), grad_v = empty({a.rows, total, a.heads, a.head_dim});
  if (grad_q.numel()) kernels().attention_grad({a, heads_of(grad, "grad"), heads_in(grad_q), heads_in(grad_k), heads_in(grad_v)});
  return {grad_q, grad_k, grad_v};
}

}  // namespace

PD_BUILD_OP(internvl_attention)
    .Inputs({"Q", "Keys", "Values", paddle::Optional("Table"), paddle::Optional("Totals"), paddle::Optional("Mask")})
    .Outputs({"Out"})
    .Attrs({"kv_heads: int64_t", "block: int64_t", "total: int64_t", "window: int64_t", "causal: int64_t"})
    .SetKernelFn(PD_KERNEL(AttentionForward));

PD_BUILD_OP(internvl_attention_backward)
    .Inputs({"Q", "K", "V", "Grad", paddle::Optional("Mask")})
    .Outputs({"GradQ", "GradK", "GradV"})
    .Attrs({"window: int64_t", "causal: int64_t"})
    .SetKernelFn(PD_KERNEL(AttentionBackward));
