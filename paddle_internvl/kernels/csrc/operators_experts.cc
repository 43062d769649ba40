// internvl_experts: the chosen experts of every row, see experts_arguments.h.
#include "border.h"
#include "dispatch.h"

namespace {

// x [T, D]; gate_up [E, D, 2 I] and down [E, I, D] (uint8: two int4 of successive rows, [E, ceil(D / 2), 2 I]); scales and
// offsets [E, groups, columns]; chosen int32 [T, top], negative: none; weights [T, top]. -> [T, D]
std::vector<Tensor> ExpertsForward(const Tensor& x, const Tensor& gate_up, const Optional& gate_up_scales,
                                   const Optional& gate_up_offsets, const Tensor& down, const Optional& down_scales,
                                   const Optional& down_offsets, const Tensor& chosen, const Tensor& weights,
                                   int64_t gate_up_group, int64_t down_group) {
  Experts a;
  require(x.dims().size() == 2 && gate_up.dims().size() == 3 && gate_up.dims()[2] % 2 == 0,
          "x must be [T, D], gate_up [E, D, 2 I]");
  a.M = x.dims()[0];
  a.count = gate_up.dims()[0];
  a.gate_up = stacked_weight_of(gate_up, gate_up_scales, gate_up_offsets, x.dims()[1], gate_up_group);
  a.down = stacked_weight_of(down, down_scales, down_offsets, a.gate_up.N / 2, down_group);
  require(down.dims()[0] == a.count && a.down.N == x.dims()[1], "down must be [E, I, D]");
  require_plain(chosen, "chosen", paddle::DataType::INT32);
  require(chosen.dims().size() == 2 && chosen.dims()[0] == a.M && weights.dims() == chosen.dims(),
          "chosen and weights must be [T, top]");
  a.top = chosen.dims()[1];
  a.chosen = chosen.data<int32_t>();
  for (int64_t i = 0; i < chosen.numel(); i++)
    require(a.chosen[i] < a.count, "chosen names an expert that there is not");
  a.weights = floats(weights, "weights");
  a.x = floats(x, "x");
  Tensor out = paddle::experimental::full(x.shape(), 0, paddle::DataType::FLOAT32, paddle::CPUPlace());
  a.out = out.data<float>();
  if (a.M && a.top) kernels().experts(a);
  return {out};
}

}  // namespace

PD_BUILD_OP(internvl_experts)
    .Inputs({"X", "GateUp", paddle::Optional("GateUpScales"), paddle::Optional("GateUpOffsets"), "Down",
             paddle::Optional("DownScales"), paddle::Optional("DownOffsets"), "Chosen", "Weights"})
    .Outputs({"Out"})
    .Attrs({"gate_up_group: int64_t", "down_group: int64_t"})
    .SetKernelFn(PD_KERNEL(ExpertsForward));
