// internvl_linear: one matrix product with what follows it, see linear_arguments.h.
#include "bfloat16.h"
#include "border.h"
#include "dispatch.h"

namespace {

Kind kind_of(const Tensor& weight) {
  switch (weight.dtype()) {
    case paddle::DataType::FLOAT32: return Kind::kFloat32;
    case paddle::DataType::BFLOAT16: return Kind::kBFloat16;
    case paddle::DataType::INT8: return Kind::kInt8;
    case paddle::DataType::UINT8: return Kind::kInt4;
    default: break;
  }
  require(false, "a weight must be float32, bfloat16, int8, or uint8 for two int4");
  return {};
}

// The first of `count` weights, whose shape is that of its last two axes.
Weight first_of(const Tensor& weight, int64_t count, const Optional& scales, const Optional& offsets, int64_t inputs,
                int64_t group) {
  Weight w;
  const auto shape = weight.shape();
  w.kind = kind_of(weight);
  const int64_t rows = w.kind == Kind::kInt4 ? (inputs + 1) / 2 : inputs, axes = shape.size();
  require(weight.is_cpu() && weight.is_contiguous(), "the weight must lie on the CPU, as one run");
  require(shape[axes - 2] == rows && rows > 0 && shape[axes - 1] > 0,
          "the weight of " + std::to_string(inputs) + " inputs must have " + std::to_string(rows) + " rows");
  w.data = weight.data();
  w.K = inputs;
  w.N = shape[axes - 1];
  const bool whole = w.kind == Kind::kInt8 || w.kind == Kind::kInt4;
  require(whole == bool(scales), "scales belong to integers, and only to those");
  require(whole || !offsets, "offsets belong to integers");
  if (whole) {
    w.group = group > 0 ? group : inputs;
    require(w.kind != Kind::kInt4 || w.group % 2 == 0 || w.group >= inputs, "groups of int4 must be even");
    const int64_t numbers = count * ((inputs + w.group - 1) / w.group) * w.N;
    w.scales = floats(scales, "scales", numbers);
    w.offsets = floats(offsets, "offsets", numbers);
  }
  return w;
}

}  // namespace

Weight weight_of(const Tensor& weight, const Optional& scales, const Optional& offsets, int64_t inputs, int64_t group) {
  require(weight.dims().size() == 2, "a weight must be [inputs, N]");
  return first_of(weight, 1, scales, offsets, inputs, group);
}

Weight stacked_weight_of(const Tensor& weight, const Optional& scales, const Optional& offsets, int64_t inputs,
                         int64_t group) {
  require(weight.dims().size() == 3, "stacked weights must be [E, inputs, N]");
  return first_of(weight, weight.dims()[0], scales, offsets, inputs, group);
}

namespace {

// x [.., K], weight [K, N] (uint8: two int4 of successive rows, [ceil(K / 2), N]), up: a second one for swiglu.
// activation: 0 none, 1 gelu, 2 swiglu. bfloat16: arithmetic in it, else in float32. int8_activations: of
// integer weights, see int8.h. -> [.., N]
std::vector<Tensor> LinearForward(const Tensor& x, const Tensor& weight, const Optional& scales,
                                  const Optional& offsets, const Optional& bias, const Optional& residual,
                                  const Optional& layer_scale, const Optional& up, const Optional& up_scales,
                                  const Optional& up_offsets, int64_t group, int64_t activation,
                                  int64_t bfloat16, int64_t int8_activations) {
  auto shape = x.shape();
  require(!shape.empty(), "x needs an axis of inputs");
  require(activation >= 0 && activation <= 2, "activation is none of 0, 1, 2");
  require(!int8_activations || scales, "int8 activations belong to weights of int8 or int4");
  Linear a;
  a.activation = static_cast<Activation>(activation);
  a.weight = weight_of(weight, scales, offsets, shape.back(), group);
  require((a.activation == Activation::kSwiglu) == bool(up), "swiglu, and nothing else, takes a second weight");
  if (up) {
    a.up = weight_of(*up, up_scales, up_offsets, shape.back(), group);
    require(a.up.N == a.weight.N, "the two weights of swiglu must have equally many columns");
    require(!bias, "swiglu takes no bias");
  }
  a.x = floats(x, "x");
  a.x_stride = a.weight.K;
  a.M = x.numel() / a.weight.K;
  a.out_stride = a.weight.N;
  a.bias = floats(bias, "bias", a.weight.N);
  a.residual = floats(residual, "residual", a.M * a.weight.N);
  a.layer_scale = floats(layer_scale, "layer_scale", a.weight.N);
  shape.back() = a.weight.N;
  Tensor out = empty(shape);
  a.out = out.data<float>();
  a.weight.int8_activations = a.up.int8_activations = int8_activations;
  require(!bfloat16 || bfloat16_kernels(), "this instruction set has no arithmetic in bfloat16");
  if (a.M) (bfloat16 ? bfloat16_kernels()->linear : kernels().linear)(a);
  return {out};
}

}  // namespace

PD_BUILD_OP(internvl_linear)
    .Inputs({"X", "Weight", paddle::Optional("Scales"), paddle::Optional("Offsets"), paddle::Optional("Bias"),
             paddle::Optional("Residual"), paddle::Optional("LayerScale"), paddle::Optional("Up"),
             paddle::Optional("UpScales"), paddle::Optional("UpOffsets")})
    .Outputs({"Out"})
    .Attrs({"group: int64_t", "activation: int64_t", "bfloat16: int64_t", "int8_activations: int64_t"})
    .SetKernelFn(PD_KERNEL(LinearForward));
