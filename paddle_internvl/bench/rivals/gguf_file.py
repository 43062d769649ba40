"""GGUF files of a checkpoint's language model, for llama.cpp: written in bfloat16, requantized by llama.cpp itself.

In: a checkpoint folder in upstream's layout. Out: one file for each storage type. Without a tokenizer: ids go in.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; tensors are renamed by `gguf.get_tensor_name_map`.

    python -m paddle_internvl.bench.rivals.gguf_file HF_DIR OUT_DIR bf16 q8_0 q4_0
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np

from convert.folder import read_config
from convert.safetensors_io import Checkpoint
from convert.sizes import DecoderSizes, decoder_sizes
from paddle_internvl.checkpoints.view import CheckpointView

ARCHITECTURES = {
    "InternLM2ForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
    "Qwen3MoeForCausalLM": gguf.MODEL_ARCH.QWEN3MOE,
}
_PREFIX = "language_model."


def write_bfloat16(folder: Path, file: Path) -> Path:
    """Write the language model with bfloat16 matrices and float32 vectors.

    Raises:
        ValueError: a family that llama.cpp reads otherwise than this function writes.
    """
    config = read_config(folder)
    llm, view = config["llm_config"], CheckpointView(Checkpoint(folder), config)
    architecture = ARCHITECTURES.get(llm["architectures"][0])
    sizes = decoder_sizes(llm)
    in_pairs = architecture == gguf.MODEL_ARCH.LLAMA  # rope's order of q and k in llama.cpp
    mixed = sizes.experts is not None and not sizes.all_sparse
    if architecture is None or llm.get("rope_scaling") or (in_pairs and sizes.qkv_bias) or mixed:
        raise ValueError(
            f"{llm['architectures'][0]} is not written as GGUF with rope_scaling, biases of Llama's q and k, or layers "
            f"without experts beside layers with experts; supported: {', '.join(ARCHITECTURES)}"
        )
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[architecture])
    _add_fields(writer, llm, sizes)
    names = gguf.get_tensor_name_map(architecture, sizes.layers)
    heads = {"q_proj": sizes.heads, "k_proj": sizes.kv_heads} if in_pairs else {}
    for name, output in view.outputs.items():
        if not name.startswith(_PREFIX):
            continue
        layer, _, kind = name.removeprefix(_PREFIX).rpartition(".")
        path, _, last = layer.rpartition(".")
        if len(output.shape) == 1 or last == "gate":  # llama.cpp's router is float32
            writer.add_tensor(f"{names[layer]}.{kind}", view.floats(name).T.copy())
            continue
        rows = view.array(name, "BF16")
        rows = rows if last == "embed_tokens" else rows.swapaxes(-1, -2)
        if last in heads:
            rows = interleaved(rows, heads[last])
        parts = {layer: rows}
        if last == "gate_up_proj":
            parts = dict(zip((f"{path}.gate_proj", f"{path}.up_proj"), np.split(rows, 2, axis=1)))
        for part, values in parts.items():
            halves = np.ascontiguousarray(values).view(np.uint8)
            writer.add_tensor(f"{names[part]}.{kind}", halves, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows [heads * E, D] with the halves of each head interleaved: llama.cpp's 'llama' applies rope to neighbours."""
    halves = rows.reshape(heads, 2, -1, rows.shape[-1])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _add_fields(writer: gguf.GGUFWriter, llm: Mapping, sizes: DecoderSizes) -> None:
    writer.add_context_length(llm["max_position_embeddings"])
    writer.add_embedding_length(sizes.width)
    writer.add_block_count(sizes.layers)
    writer.add_feed_forward_length(sizes.features)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(sizes.kv_heads)
    writer.add_key_length(sizes.head_dim)
    writer.add_value_length(sizes.head_dim)
    writer.add_layer_norm_rms_eps(llm["rms_norm_eps"])
    writer.add_rope_freq_base(llm["rope_theta"])
    writer.add_rope_dimension_count(sizes.head_dim)
    if sizes.experts:
        writer.add_expert_count(sizes.experts.experts)
        writer.add_expert_used_count(sizes.experts.active)
        writer.add_expert_feed_forward_length(sizes.experts.features)
    writer.add_vocab_size(sizes.vocabulary)
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)


def quantize(source: Path, file: Path, kind: str) -> Path:
    """Requantize a file as `llama-quantize` does: table and head as its rules for the type have them.

    Args:
        source: the bfloat16 file.
        file: written here.
        kind: 'q8_0' or 'q4_0'.
    Raises:
        RuntimeError: llama.cpp failed.
    """
    import llama_cpp

    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    if llama_cpp.llama_model_quantize(str(source).encode(), str(file).encode(), options):
        raise RuntimeError(f"llama.cpp failed to quantize {source} to {kind}")
    return file


def write(folder: Path, out: Path, kinds: Sequence[str]) -> None:
    """Write `out`/KIND.gguf for every kind: 'bf16', 'q8_0', 'q4_0'."""
    out.mkdir(parents=True, exist_ok=True)
    source = write_bfloat16(folder, out / "bf16.gguf")
    for kind in kinds:
        if kind != "bf16":
            quantize(source, out / f"{kind}.gguf", kind)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
