// internvl_norm, internvl_add_norm, internvl_rope, internvl_elements: see pointwise_arguments.h.
#include "border.h"
#include "dispatch.h"

namespace {

Norm norm_of(const Tensor& x, const Tensor& weight, const Optional& bias, double eps, int64_t centred) {
  Norm a;
  require(x.dims().size() > 0, "x needs an axis of features");
  a.width = x.dims()[x.dims().size() - 1];
  a.x = floats(x, "x");
  a.x_apart = a.out_apart = a.width;
  a.rows = a.width ? x.numel() / a.width : 0;
  require(weight.numel() == a.width, "the weight of a norm must be as wide as x");
  a.weight = floats(weight, "weight");
  a.bias = floats(bias, "bias", a.width);
  a.eps = eps;
  a.centred = centred;
  return a;
}

std::vector<Tensor> NormForward(const Tensor& x, const Tensor& weight, const Optional& bias, double eps,
                                int64_t centred) {
  Norm a = norm_of(x, weight, bias, eps, centred);
  Tensor out = empty(x.shape());
  a.out = out.data<float>();
  kernels().norm(a);
  return {out};
}

// (x + y, its norm)
std::vector<Tensor> AddNormForward(const Tensor& x, const Tensor& y, const Tensor& weight, const Optional& bias,
                                   double eps, int64_t centred) {
  Norm a = norm_of(x, weight, bias, eps, centred);
  require(y.shape() == x.shape(), "what is added must have the shape of x");
  Tensor sum = empty(x.shape()), out = empty(x.shape());
  a.add = floats(y, "y");
  a.sum = sum.data<float>();
  a.out = out.data<float>();
  kernels().norm(a);
  return {sum, out};
}

// x [B, L, H, E] turned by tables [B, L, 1, E].
std::vector<Tensor> RopeForward(const Tensor& x, const Tensor& cosines, const Tensor& sines) {
  const auto shape = x.shape();
  require(shape.size() == 4 && shape[3] % 2 == 0, "x must be [B, L, H, E] with an even E");
  Turn a;
  a.rows = shape[0] * shape[1];
  a.heads = shape[2];
  a.head_dim = shape[3];
  a.x = floats(x, "x");
  a.x_apart = a.out_apart = a.heads * a.head_dim;
  require(cosines.numel() == a.rows * a.head_dim && sines.numel() == a.rows * a.head_dim,
          "cosines and sines must be [B, L, 1, E]");
  a.cosines = floats(cosines, "cosines");
  a.sines = floats(sines, "sines");
  Tensor out = empty(shape);
  a.out = out.data<float>();
  kernels().turn(a);
  return {out};
}

// what: 0 gelu(x), 1 silu(x) * y, 2 x + y * scale.
std::vector<Tensor> ElementsForward(const Tensor& x, const Optional& y, const Optional& scale, int64_t what) {
  require(what >= 0 && what <= 2, "what is none of 0, 1, 2");
  Elements a;
  a.what = static_cast<Pointwise>(what);
  a.count = x.numel();
  a.width = x.dims().size() ? x.dims()[x.dims().size() - 1] : 1;
  a.x = floats(x, "x");
  a.y = floats(y, "y", a.count);
  a.scale = floats(scale, "scale", a.width);
  require((a.y != nullptr) == (what != 0) && (a.scale != nullptr) == (what == 2), "y or scale is not as `what` needs it");
  Tensor out = empty(x.shape());
  a.out = out.data<float>();
  if (a.count) kernels().elements(a);
  return {out};
}

}  // namespace

PD_BUILD_OP(internvl_norm)
    .Inputs({"X", "Weight", paddle::Optional("Bias")})
    .Outputs({"Out"})
    .Attrs({"eps: double", "centred: int64_t"})
    .SetKernelFn(PD_KERNEL(NormForward));

PD_BUILD_OP(internvl_add_norm)
    .Inputs({"X", "Y", "Weight", paddle::Optional("Bias")})
    .Outputs({"Sum", "Out"})
    .Attrs({"eps: double", "centred: int64_t"})
    .SetKernelFn(PD_KERNEL(AddNormForward));

PD_BUILD_OP(internvl_rope)
    .Inputs({"X", "Cosines", "Sines"})
    .Outputs({"Out"})
    .SetKernelFn(PD_KERNEL(RopeForward));

PD_BUILD_OP(internvl_elements)
    .Inputs({"X", paddle::Optional("Y"), paddle::Optional("Scale")})
    .Outputs({"Out"})
    .Attrs({"what: int64_t"})
    .SetKernelFn(PD_KERNEL(ElementsForward));
