"""Layers with a fault in them, for the test of the tool itself: `python -m tests.gpu.planted` prints what was found."""

from __future__ import annotations

import json
import warnings

warnings.filterwarnings("ignore")

import paddle  # noqa: E402
import paddle.nn.functional as F  # noqa: E402
from paddle import nn  # noqa: E402
from paddle.static import InputSpec  # noqa: E402

from paddle_internvl.ops import rope  # noqa: E402
from paddle_internvl.ops.attention import attention  # noqa: E402
from tests.gpu import graph, pretending  # noqa: E402

HIDDEN = InputSpec([2, 5, 64], "bfloat16", stop_gradient=True)
HEADS = InputSpec([2, 5, 4, 16], "bfloat16", stop_gradient=True)


class _Linear(nn.Layer):
    def __init__(self, dtype: str):
        super().__init__()
        self.linear = nn.Linear(64, 64)
        self.linear.to(dtype=dtype)


class Sound(_Linear):
    def forward(self, x):
        return self.linear(x)


class WideWeight(_Linear):
    """A float32 weight, of which a matrix product would make an error on a card alone."""

    def forward(self, x):
        return self.linear(x)


class WideProduct(_Linear):
    """Everything is cast up around a product: consistent, and half as fast."""

    def forward(self, x):
        return self.linear(x.astype("float32")).astype("bfloat16")


class WideFactor(_Linear):
    """A float32 factor turns what follows into float32."""

    def forward(self, x):
        return self.linear(x) * paddle.full([64], 0.5, "float32")


class WideValue(nn.Layer):
    def forward(self, x):
        return attention(x, x, x.astype("float32"), causal=False)


class WideTables(nn.Layer):
    def forward(self, x):
        table = paddle.ones([2, 5, 1, 16], "float32")
        return rope.apply(x, table, table)


class Unknown(nn.Layer):
    """An operation that the table of kernels does not have."""

    def forward(self, x):
        return F.silu(x) * x


LAYERS = {
    "sound": (lambda: Sound("bfloat16"), HIDDEN),
    "wide weight": (lambda: WideWeight("float32"), HIDDEN),
    "wide product": (lambda: WideProduct("float32"), HIDDEN),
    "wide factor": (lambda: WideFactor("bfloat16"), HIDDEN),
    "wide value": (WideValue, HEADS),
    "wide tables": (WideTables, HEADS),
    "unknown": (Unknown, HIDDEN),
}


def examined() -> dict[str, dict]:
    """name -> faults, casts, counts and outputs of each layer's program."""
    found = {}
    with pretending.card():
        for name, (make, given) in LAYERS.items():
            layer = make()
            for parameter in layer.parameters():
                parameter.stop_gradient = True
            try:
                made = graph.build(layer, given)
            except TypeError as error:
                found[name] = {"error": str(error)}
                continue
            casts = [[*kind, count] for kind, count in made.casts().items()]
            counted = {"faults": made.faults("bfloat16"), "casts": casts, "count": made.count()}
            found[name] = {**counted, "outputs": made.outputs}
    return found


if __name__ == "__main__":
    print(json.dumps(examined()))
