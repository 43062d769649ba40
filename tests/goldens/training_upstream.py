"""Upstream's training code on a CPU: its modules with stand-ins for what a CPU lacks or a golden does not need.

flash-attn is an exact float32 stand-in, attention by segments; deepspeed, cv2, decord and petrel are empty.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import math
import sys
import types
from pathlib import Path

import torch
from PIL import Image
from transformers import PreTrainedModel


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, softmax_scale=None, causal=True, window_size=None, **_):
    """Causal softmax attention within each segment. q, k, v: [L, H, E]."""
    scale = softmax_scale or 1 / math.sqrt(q.shape[-1])
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    bounds = cu_seqlens_q.tolist()
    out = []
    for start, stop in zip(bounds, bounds[1:]):
        scores = torch.einsum("qhe,khe->hqk", q[start:stop], k[start:stop]) * scale
        hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        out.append(torch.einsum("hqk,khe->qhe", weights, v[start:stop]))
    return torch.cat(out)


def _stand_in(name: str, **content) -> None:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__path__ = []
    for key, value in content.items():
        setattr(module, key, value)
    sys.modules[name] = module


def import_training(clone: Path):
    """Upstream's `internvl_chat_finetune` module."""
    flash = dict.fromkeys(
        ("flash_attn_func", "flash_attn_varlen_func", "flash_attn_varlen_kvpacked_func",
         "flash_attn_unpadded_qkvpacked_func", "flash_attn_varlen_qkvpacked_func"), flash_attn_varlen_func
    )  # fmt: skip
    _stand_in("flash_attn", __version__="2.5.0", **flash)
    _stand_in("flash_attn.flash_attn_interface", **flash)
    _stand_in("flash_attn.bert_padding", index_first_axis=None, pad_input=None, unpad_input=None)
    for name in ("deepspeed", "cv2"):
        _stand_in(name)
    _stand_in("decord", VideoReader=None)
    # transformers refuses flash attention without the package; here the stand-in is called instead.
    PreTrainedModel._check_and_enable_flash_attn_2 = classmethod(lambda cls, config, *_, **__: config)
    sys.path.insert(0, str(clone / "internvl_chat"))
    for name in ("llama", "qwen2"):  # classes of flash attention ask for the version of the package
        module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
        module.is_flash_attn_greater_or_equal_2_10 = lambda: True
        module._flash_supports_window_size = True
    return importlib.import_module("internvl.train.internvl_chat_finetune")


def item_function(
    train, template, tokenizer, annotation: Path, media: Path, tokens_per_tile: int, image_size: int,
    max_dynamic_patch: int,
):  # fmt: skip
    """A function from an annotation item to upstream's sample, without the catch-all that replaces bad ones.

    A clip has four white frames: upstream reads clips from its object store alone.
    """
    dataset = train.LazySupervisedDataset(
        template, {"annotation": str(annotation), "root": str(media)}, tokenizer,
        lambda path, **_: [Image.new("RGB", (image_size, image_size), (255, 255, 255))] * 4, "ds", tokens_per_tile,
        image_size=image_size, is_train=False, group_by_length=True, dynamic_image_size=True, use_thumbnail=True,
        min_dynamic_patch=1, max_dynamic_patch=max_dynamic_patch,
    )  # fmt: skip

    def sample_of(item: dict) -> dict:
        if item.get("image"):
            several = isinstance(item["image"], list)
            return (dataset.multi_modal_multi_image_get_item if several else dataset.multi_modal_get_item)(item)
        return (dataset.video_get_item if item.get("video") else dataset.pure_text_get_item)(item)

    return sample_of
