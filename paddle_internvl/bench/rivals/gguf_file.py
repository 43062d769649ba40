"""GGUF files of a checkpoint's language model, for llama.cpp: written in bfloat16, requantized by llama.cpp itself.

In: a checkpoint folder in upstream's layout. Out: one file for each storage type. Without a tokenizer: ids go in.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; names of tensors are those of `gguf.constants`.

    python -m paddle_internvl.bench.rivals.gguf_file HF_DIR OUT_DIR bf16 q8_0 q4_0
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np

from convert.dtypes import cast
from convert.folder import read_config
from convert.safetensors_io import Checkpoint
from convert.sizes import DecoderSizes, decoder_sizes
from paddle_internvl.checkpoints.view import CheckpointView

ARCHITECTURES = {"InternLM2ForCausalLM": "llama", "LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2",
                 "Qwen3ForCausalLM": "qwen3"}  # fmt: skip
_OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_INSIDE = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
Floats = Callable[[str], np.ndarray]


def write_bfloat16(folder: Path, file: Path) -> Path:
    """Write the language model with bfloat16 matrices and float32 vectors.

    Raises:
        ValueError: a family that llama.cpp reads otherwise than this function writes.
    """
    config = read_config(folder)
    llm, view = config["llm_config"], CheckpointView(Checkpoint(folder), config)
    architecture = ARCHITECTURES.get(llm["architectures"][0])
    sizes = decoder_sizes(llm)
    if architecture is None or llm.get("rope_scaling") or (architecture == "llama" and sizes.qkv_bias) or sizes.experts:
        raise ValueError(
            f"{llm['architectures'][0]} is not written as GGUF with rope_scaling, experts or biases of Llama's q and k"
            f"; supported: {', '.join(ARCHITECTURES)}"
        )
    writer = gguf.GGUFWriter(file, architecture)
    _add_fields(writer, llm, sizes)
    prefix = "language_model."
    for name in view.outputs:
        if not name.startswith(prefix):
            continue
        target = tensor_name(name.removeprefix(prefix))
        values = view.floats(name)
        if values.ndim == 1:
            writer.add_tensor(target, values)
            continue
        rows = values if target.startswith("token_embd") else values.swapaxes(-1, -2)
        if architecture == "llama" and any(part in target for part in ("attn_q.", "attn_k.")):
            rows = interleaved(rows, llm, "attn_q." in target)
        halves = cast(np.ascontiguousarray(rows).view(np.uint32), "F32", "BF16")
        writer.add_tensor(target, halves.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def tensor_name(name: str) -> str:
    """llama.cpp's name of a tensor of ours, e.g. 'model.layers.3.mlp.up_proj.weight' -> 'blk.3.ffn_up.weight'."""
    stem, _, kind = name.rpartition(".")
    if stem in _OUTSIDE:
        return f"{_OUTSIDE[stem]}.{kind}"
    _, _, number, inside = stem.split(".", 3)
    return f"blk.{number}.{_INSIDE[inside]}.{kind}"


def interleaved(rows: np.ndarray, llm: Mapping, of_queries: bool) -> np.ndarray:
    """Rows [heads * E, D] with each head's halves interleaved: llama.cpp's 'llama' turns neighbours by rope."""
    sizes = decoder_sizes(llm)
    heads = sizes.heads if of_queries else sizes.kv_heads
    pairs = rows.reshape(heads, 2, sizes.head_dim // 2, -1)
    return pairs.swapaxes(1, 2).reshape(rows.shape)


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
