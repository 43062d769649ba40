// internvl_linear: one matrix product with what follows it, see linear_arguments.h.
#include "border.h"
#include "dispatch.h"

namespace {

Kind kind_of(const Tensor& panels) {
  switch (panels.dtype()) {
    case paddle::DataType::FLOAT32: return Kind::kFloat32;
    case paddle::DataType::BFLOAT16: return Kind::kBFloat16;
    case paddle::DataType::INT8: return Kind::kInt8;
    case paddle::DataType::UINT8: return Kind::kInt4;
    default: throw std::invalid_argument("panels must be float32, bfloat16, int8, or uint8 for two int4");
  }
}

}  // namespace

// A weight from what a PackedLinear holds. inputs: K; columns: N.
Weight weight_of(const Tensor& panels, const Optional& scales, const Optional& offsets, int64_t inputs,
                 int64_t columns, int64_t group) {
  Weight w;
  w.kind = kind_of(panels);
  w.panels = panels.data();
  w.K = inputs;
  w.N = columns;
  const auto shape = panels.shape();
  const int64_t count = (columns + 31) / 32, rows = w.kind == Kind::kInt4 ? (inputs + 1) / 2 : inputs;
  require(panels.is_cpu(), "panels must lie on the CPU");
  require(inputs > 0 && columns > 0, "a weight needs inputs and outputs");
  require(shape.size() == 3 && shape[0] == count && shape[1] == rows && shape[2] == 32,
          "panels of a weight [" + std::to_string(inputs) + ", " + std::to_string(columns) + "] must be [" +
              std::to_string(count) + ", " + std::to_string(rows) + ", 32]");
  const bool whole = w.kind == Kind::kInt8 || w.kind == Kind::kInt4;
  require(whole == bool(scales), "scales belong to integer panels, and only to those");
  if (whole) {
    w.group = group > 0 ? group : inputs;
    require(w.kind != Kind::kInt4 || w.group % 2 == 0 || w.group >= inputs, "groups of int4 must be even");
    const int64_t numbers = count * ((inputs + w.group - 1) / w.group) * 32;
    w.scales = floats(scales, "scales", numbers);
    w.offsets = floats(offsets, "offsets", numbers);
  } else {
    require(!offsets, "offsets belong to integer panels");
  }
  return w;
}

namespace {

// x [.., K] -> [.., columns]. activation: 0 none, 1 gelu, 2 swiglu (panels take turns; bias is in their order).
std::vector<Tensor> LinearForward(const Tensor& x, const Tensor& panels, const Optional& scales, const Optional& offsets,
                                  const Optional& bias, const Optional& residual, const Optional& layer_scale,
                                  int64_t columns, int64_t group, int64_t activation) {
  auto shape = x.shape();
  require(!shape.empty(), "x needs an axis of inputs");
  require(activation >= 0 && activation <= 2, "activation is none of 0, 1, 2");
  Linear a;
  a.activation = static_cast<Activation>(activation);
  const bool pairs = a.activation == Activation::kSwiglu;
  a.weight = weight_of(panels, scales, offsets, shape.back(), pairs ? (columns + 31) / 32 * 64 : columns, group);
  a.x = floats(x, "x");
  a.x_stride = a.weight.K;
  a.M = x.numel() / a.weight.K;
  a.columns = a.out_stride = columns;
  a.bias = floats(bias, "bias", a.weight.N);
  a.residual = floats(residual, "residual", a.M * columns);
  a.layer_scale = floats(layer_scale, "layer_scale", columns);
  shape.back() = columns;
  Tensor out = empty(shape);
  a.out = out.data<float>();
  if (a.M) kernels().linear(a);
  return {out};
}


}  // namespace

PD_BUILD_OP(internvl_linear)
    .Inputs({"X", "Panels", paddle::Optional("Scales"), paddle::Optional("Offsets"), paddle::Optional("Bias"),
             paddle::Optional("Residual"), paddle::Optional("LayerScale")})
    .Outputs({"Out"})
    .Attrs({"columns: int64_t", "group: int64_t", "activation: int64_t"})
    .SetKernelFn(PD_KERNEL(LinearForward));
