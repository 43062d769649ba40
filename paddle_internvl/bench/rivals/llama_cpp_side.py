"""llama.cpp's side of the benchmark, through llama-cpp-python's plain functions.

In and out as in `..ours`; `load` takes a folder of `gguf_file.write`. The KV cache is float16, llama.cpp's default; of
a prompt only the last position has logits.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np

from paddle_internvl import runtime
from paddle_internvl.bench import inputs

_CAPACITY = 4096  # positions, without a longer stage
_PIECE = 512  # positions of a prompt at a time, llama.cpp's own size


class LlamaCpp:
    """The language model on llama.cpp. Arguments and methods: see `ours.Ours`."""

    stored_bits = 16

    def __init__(self, device: str | None = None):
        llama_cpp.llama_backend_init()
        self._silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._silent, None)
        self._model = self._context = None

    def load(self, folder: Path, part: str, kind: str) -> None:
        """Load a file of that kind.

        Raises:
            RuntimeError: llama.cpp refused it.
        """
        options = llama_cpp.llama_model_default_params()
        file = folder / f"{kind}.gguf"
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), options)
        if not self._model:
            raise RuntimeError(f"llama.cpp can't load {file}")
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def _open(self, capacity: int) -> None:
        """A context of so many positions; the last one is freed."""
        if self._context:
            llama_cpp.llama_free(self._context)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = capacity
        options.n_batch = options.n_ubatch = _PIECE
        options.n_threads = options.n_threads_batch = runtime.cpu_cores()
        self._context = llama_cpp.llama_init_from_model(self._model, options)

    def prepare(self, kind: str, **numbers):
        """The function that does a stage of this kind once."""
        self._open(max(_CAPACITY, -(-(numbers["length"] + 64) // 256) * 256))
        return getattr(self, f"_{kind}")(**numbers)

    @staticmethod
    def array(result) -> np.ndarray:
        """The result of a run as an array."""
        return result

    def _prefill(self, length: int):
        ids = inputs.token_ids(length, self._vocabulary)[0]

        def run():
            self._forget(0)
            return self._step(ids)

        return run

    def _decode(self, length: int, tokens: int):
        ids = inputs.token_ids(length + tokens, self._vocabulary)[0]
        self._step(ids[:length])

        def run():
            self._forget(length)
            for at in range(length, length + tokens):
                logits = self._step(ids[at : at + 1])
            return logits

        return run

    def _forget(self, length: int) -> None:
        """Drop the KV cache from position `length` on."""
        llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(self._context), 0, length, -1)

    def _step(self, ids: np.ndarray) -> np.ndarray:
        """Logits float32 [1, 1, V] after the ids."""
        for first in range(0, len(ids), _PIECE):
            piece = np.ascontiguousarray(ids[first : first + _PIECE], np.int32)
            tokens = piece.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token))
            code = llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(tokens, len(piece)))
            if code:
                raise RuntimeError(f"llama.cpp failed to decode, code {code}")
        logits = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(logits, (1, 1, self._vocabulary)).copy()
