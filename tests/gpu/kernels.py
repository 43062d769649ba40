"""For which dtypes Paddle registers CUDA kernels, operation by operation, and where that was looked up.

The CPU build at hand can't tell. Rows with a source were read in PaddlePaddle/Paddle on GitHub, in the stored version
whose commit begins as given; those versions are of different ages and none is marked 3.3.1. Rows without a source were
not confirmed: either nobody looked (they move data about, and have kernels for every dtype on a CPU too), or `note`
says what was seen instead.
"""

from __future__ import annotations

from dataclasses import dataclass

_HALVES = ("float16", "bfloat16")
_THREE = (*_HALVES, "float32")
_FOUR = (*_THREE, "float64")


@dataclass(frozen=True)
class Kernel:
    """One operation's CUDA kernels.

    Args:
        dtypes: of float operands. source: file below paddle/phi/kernels. commit: how the commit's hash begins.
    """

    dtypes: tuple[str, ...]
    source: str = ""
    commit: str = ""
    note: str = ""

    @property
    def confirmed(self) -> bool:
        return bool(self.source)


_FORMER_NORM = "registered as rms_norm in that version, which 3.3 renamed"
_OLD_SCATTER = "d2a7458 has float16 only; later versions that the index holds without a path have bfloat16 too"
_BY_TEXT = "seen in a version that the index finds by its text, without a path"

_MOVERS = (
    "add_grad", "arange", "assign_value", "bernoulli", "bicubic_interp", "bicubic_interp_grad", "cast", "clip",
    "concat", "concat_grad", "cos", "cumsum", "empty", "expand", "expand_grad", "flatten", "flatten_grad", "full",
    "full_like", "greater_than", "mean", "mean_grad", "multiply_grad", "reshape", "reshape_grad", "scale", "sin",
    "slice", "slice_grad", "split_with_num", "squeeze", "squeeze_grad", "transpose", "transpose_grad", "unsqueeze",
    "divide_grad", "dropout", "dropout_grad", "exp", "log", "max", "not_equal", "put_along_axis", "shape64", "sum",
    "sum_grad", "take_along_axis", "topk", "topk_grad",
    "unsqueeze_grad",
)  # fmt: skip

KERNELS: dict[str, Kernel] = {
    # where the arithmetic is
    "flash_attn": Kernel(_HALVES, "gpu/flash_attn_kernel.cu", "009e8cf"),
    "flash_attn_grad": Kernel(_HALVES, "gpu/flash_attn_grad_kernel.cu", "01819f6"),
    "flashmask_attention": Kernel(_HALVES, note=_BY_TEXT),
    "flashmask_attention_grad": Kernel(_HALVES, note=_BY_TEXT),
    "matmul": Kernel(_FOUR, "gpu/matmul_kernel.cu", "0474179"),
    "matmul_grad": Kernel(_FOUR, "gpu/matmul_grad_kernel.cu", "1d39e70"),
    "linear_v2": Kernel(_FOUR, "gpu/linear_v2_kernel.cu", "028ae96"),
    "linear_v2_grad": Kernel(_FOUR, "gpu/linear_v2_grad_kernel.cu", "028ae96"),
    "weight_only_linear": Kernel(
        _HALVES, "gpu/weight_only_linear_kernel.cu", "04818d1", "sm70, 75, 80, 86, 89, 90, 100"
    ),
    "conv2d": Kernel(_FOUR, "gpudnn/conv_kernel.cu", "005ad63", "bfloat16 from cuDNN 8.1"),
    "conv2d_grad": Kernel(_FOUR, "gpudnn/conv_grad_kernel.cu", "005ad63", "bfloat16 from cuDNN 8.1"),
    # norms, activations, rotary embedding
    "fused_rms_norm_quant": Kernel(_THREE, "gpu/rms_norm_kernel.cu", "02a5e4e", _FORMER_NORM),
    "rms_norm": Kernel(_THREE, note="3.3's own was not found; a former operation of that name has these"),
    "rms_norm_grad": Kernel(_THREE, "gpu/rms_norm_grad_kernel.cu", "00816fc", "of the former rms_norm"),
    "layer_norm": Kernel(_FOUR, "gpu/layer_norm_kernel.cu", "09a40fa", "bfloat16 from cuDNN 8.1"),
    "layer_norm_grad": Kernel(_FOUR, "gpu/layer_norm_grad_kernel.cu", "094db38", "bfloat16 from cuDNN 8.1"),
    "fused_rotary_position_embedding": Kernel(_FOUR, "fusion/gpu/fused_rope_kernel.cu", "02ecffc"),
    "fused_rotary_position_embedding_grad": Kernel(_FOUR, "fusion/gpu/fused_rope_grad_kernel.cu", "02ecffc"),
    "swiglu": Kernel(_FOUR, "gpu/swiglu_kernel.cu", "0ab6998"),
    "swiglu_grad": Kernel(_FOUR, "gpu/swiglu_grad_kernel.cu", "1697efa"),
    "gelu": Kernel(_FOUR, "gpu/gelu_kernel.cu", "0315bcd"),
    "gelu_grad": Kernel(_FOUR, "gpu/gelu_grad_kernel.cu", "0437ba9"),
    "softmax": Kernel(_FOUR, note="float16, bfloat16 and float32 of its HIP twin were seen (gpudnn/softmax_kernel.cu)"),
    "softmax_grad": Kernel(_FOUR),
    # tables, caches, masks
    "embedding": Kernel(_FOUR, "gpu/embedding_kernel.cu", "0094b98"),
    "embedding_grad": Kernel(_FOUR, "gpu/embedding_grad_kernel.cu", "0315bcd"),
    "scatter": Kernel(_FOUR, note=_OLD_SCATTER),
    "scatter_grad": Kernel(_FOUR, "gpu/scatter_grad_kernel.cu", "14639d4"),
    "index_select": Kernel(_FOUR, "gpu/index_select_kernel.cu", "0315bcd"),
    "index_select_grad": Kernel(_FOUR, "gpu/index_select_grad_kernel.cu", "008ef13"),
    "gather": Kernel(_FOUR, "gpu/gather_kernel.cu", "09f6167", "int8 and uint8 too"),
    "gather_grad": Kernel(_FOUR),
    "set_value": Kernel(_FOUR, "gpu/set_value_kernel.cu", "00ca677"),
    "set_value_with_tensor": Kernel(_FOUR, "gpu/set_value_kernel.cu", "00ca677"),
    "where": Kernel(_FOUR, "gpu/where_kernel.cu", "02a5e4e"),
    # elementwise
    "add": Kernel(_FOUR, "kps/elementwise_kernel.cu", "0687230"),
    "subtract": Kernel(_FOUR, "kps/elementwise_kernel.cu", "0687230"),
    "multiply": Kernel(_FOUR, "kps/elementwise_kernel.cu", "0687230"),
    "divide": Kernel(_FOUR, "kps/elementwise_kernel.cu", "0687230"),
    "elementwise_pow": Kernel(_FOUR, "kps/elementwise_kernel.cu", "0687230"),
    "add_n": Kernel(_FOUR, note=_BY_TEXT),
    "cross_entropy_with_softmax": Kernel(("float16", "float32", "float64"), note=_BY_TEXT),
    "cross_entropy_with_softmax_grad": Kernel(("float16", "float32", "float64")),
    # not looked up: they move data or make small tables
    **dict.fromkeys(_MOVERS, Kernel(_FOUR)),
}
