"""Parameter count, data type, quantization and device of a loaded model, as the server and the web demo show them."""

from __future__ import annotations

from paddle_internvl.estimation.weights import parameter_counts


def facts_of(model) -> dict:
    """Facts of a model.

    Returns:
        parameters: as the config has them, quantized or not.
        dtype: of the activations, as 'bfloat16'.
        quantization: 'wint8' or 'wint4' with quantized linear weights, else None.
        device: 'cpu' or 'gpu:<index>' of the first weight.
    """
    from paddle_internvl.ops.devices import device_of  # imports Paddle
    from paddle_internvl.ops.quantized_linear import QuantizedLinear

    bits = {layer.bits for layer in model.sublayers() if isinstance(layer, QuantizedLinear)}
    return {
        "parameters": parameter_counts(model.config.to_dict()).total,
        "dtype": str(model.config.dtype).removeprefix("paddle."),
        "quantization": f"wint{min(bits)}" if bits else None,
        "device": device_of(next(iter(model.parameters()))),
    }
