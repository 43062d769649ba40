"""OpenVINO's side of the benchmark: the graphs of `openvino_graph` compiled for its CPU plugin.

In and out as in `..ours`. float32 and bfloat16 are the arithmetic, with weights that stay bfloat16 in memory; with 8
and 4 bits the arithmetic and the KV cache are what the plugin chooses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov

from convert.folder import read_config
from convert.safetensors_io import Checkpoint
from convert.sizes import tile_sizes
from paddle_internvl import runtime
from paddle_internvl.bench import inputs
from paddle_internvl.bench.rivals.openvino_graph import decoder_graph, projector_graph, vision_graph
from paddle_internvl.bench.rivals.openvino_weights import Weights
from paddle_internvl.checkpoints.view import CheckpointView

_PROPERTIES = {
    "float32": {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"},
    "bfloat16": {"INFERENCE_PRECISION_HINT": "bf16", "KV_CACHE_PRECISION": "bf16"},
    "int8": {},
    "int4": {},
}
_BITS = {"int8": 8, "int4": 4}


class OpenVINO:
    """The model on OpenVINO. Arguments and methods: see `ours.Ours`."""

    stored_bits = 16

    def __init__(self, device: str | None = None):
        self._core = ov.Core()

    def load(self, folder: Path, part: str, precision: str) -> None:
        """Compile those parts of upstream's folder that `part` names."""
        self._config = read_config(folder)
        weights = Weights(CheckpointView(Checkpoint(folder), self._config), _BITS.get(precision, 16))
        threads = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": runtime.cpu_cores()}
        builders = {"vision": (vision_graph, projector_graph), "language": (decoder_graph,)}[part]
        self._requests = {}
        for build in builders:
            model = build(self._config, weights)
            compiled = self._core.compile_model(model, "CPU", {**threads, **_PROPERTIES[precision]})
            self._requests[model.friendly_name] = compiled.create_infer_request()

    def prepare(self, kind: str, **numbers):
        """The function that does a stage of this kind once."""
        return getattr(self, f"_{kind}")(**numbers)

    @staticmethod
    def array(result) -> np.ndarray:
        """The result of a run as an array."""
        return np.asarray(result, np.float32)

    def _vision(self, tiles: int):
        pixels = inputs.pixels(tiles, tile_sizes(self._config).side)
        return lambda: self._infer("vision", pixels=pixels)

    def _projector(self, tiles: int):
        width = self._config["vision_config"]["hidden_size"]
        hidden = inputs.features(tiles, tile_sizes(self._config).patches, width)
        return lambda: self._infer("projector", hidden=hidden)

    def _prefill(self, length: int):
        ids = inputs.token_ids(length, self._config["llm_config"]["vocab_size"])

        def run():
            self._requests["decoder"].reset_state()
            return self._step(ids, 0)

        return run

    def _decode(self, length: int, tokens: int):
        ids = inputs.token_ids(length + tokens, self._config["llm_config"]["vocab_size"])
        decoder = self._requests["decoder"]
        decoder.reset_state()
        self._step(ids[:, :length], 0)
        filled = {state.name: ov.Tensor(state.state.data.copy()) for state in decoder.query_state()}

        def run():
            for state in decoder.query_state():
                state.state = filled[state.name]
            for at in range(length, length + tokens):
                logits = self._step(ids[:, at : at + 1], at)
            return logits

        return run

    def _step(self, ids: np.ndarray, past: int) -> np.ndarray:
        length = past + ids.shape[1]
        return self._infer(
            "decoder", input_ids=ids, attention_mask=np.ones((1, length), np.int64),
            position_ids=np.arange(past, length)[None], beam_idx=np.zeros(1, np.int32),
        )  # fmt: skip

    def _infer(self, name: str, **arrays: np.ndarray) -> np.ndarray:
        return self._requests[name].infer(arrays, share_inputs=True, share_outputs=True)[0]
