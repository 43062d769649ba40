"""PyTorch's side of the benchmark: upstream's code on torch, as it runs without flash attention.

In and out as in `ours`. The vision tower is upstream's sequence of operations in short modules with
upstream's names, so that its tensors load as they are: one linear layer for q, k and v, attention by product, softmax
and product, exact GELU. transformers' own InternVL has separate q, k and v. The language model is
transformers' own class, which is the one upstream uses, with its scaled-dot-product attention.
InternLM2, whose code comes with the checkpoint, runs as Llama after its fused weight is split. Prefill computes only
the last position's logits.
With `fused_attention` the vision tower takes torch's scaled-dot-product attention too; with `int8` the language model's
linear layers are those of torch's dynamic quantisation. This file and `reference_training` alone import torch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from convert.folder import read_config
from convert.mappings.hf_native import native_config
from convert.safetensors_io import Checkpoint
from convert.sizes import tile_sizes
from paddle_internvl.bench import inputs
from paddle_internvl.bench.reference_training import training_step
from paddle_internvl.bench.training_stages import TRAINING_STEP
from paddle_internvl.checkpoints.view import CheckpointView
from paddle_internvl.preprocess.pixels import IMAGENET_MEAN, IMAGENET_STD
from paddle_internvl.preprocess.tiles import dynamic_preprocess


class _RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.empty(width)), eps

    def forward(self, x):
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class _Embeddings(nn.Module):
    def __init__(self, vision: dict):
        super().__init__()
        width, patch = vision["hidden_size"], vision["patch_size"]
        self.class_embedding = nn.Parameter(torch.empty(1, 1, width))
        self.patch_embedding = nn.Conv2d(3, width, patch, patch)
        self.position_embedding = nn.Parameter(torch.empty(1, 1 + (vision["image_size"] // patch) ** 2, width))

    def forward(self, pixels):  # [T, 3, S, S]
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        return torch.cat([self.class_embedding.expand(len(pixels), 1, -1), patches], 1) + self.position_embedding


class _Attention(nn.Module):
    def __init__(self, vision: dict, fused: bool):
        super().__init__()
        width, eps = vision["hidden_size"], vision["layer_norm_eps"]
        self.heads, self.fused, self.normed = vision["num_attention_heads"], fused, vision["qk_normalization"]
        self.qkv = nn.Linear(width, 3 * width, bias=vision["qkv_bias"])
        self.proj = nn.Linear(width, width)
        if self.normed:
            self.q_norm, self.k_norm = _RMSNorm(width, eps), _RMSNorm(width, eps)

    def forward(self, x):  # [T, 1+P, C]
        tiles, length, width = x.shape
        q, k, v = self.qkv(x).reshape(tiles, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.normed:  # over all heads together
            q = self.q_norm(q.transpose(1, 2).flatten(-2)).reshape(tiles, length, self.heads, -1).transpose(1, 2)
            k = self.k_norm(k.transpose(1, 2).flatten(-2)).reshape(tiles, length, self.heads, -1).transpose(1, 2)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return self.proj(y.transpose(1, 2).reshape(tiles, length, width))


class _MLP(nn.Module):
    def __init__(self, vision: dict):
        super().__init__()
        self.fc1 = nn.Linear(vision["hidden_size"], vision["intermediate_size"])
        self.fc2 = nn.Linear(vision["intermediate_size"], vision["hidden_size"])

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class _Layer(nn.Module):
    def __init__(self, vision: dict, fused: bool):
        super().__init__()
        width, eps = vision["hidden_size"], vision["layer_norm_eps"]
        norm = _RMSNorm if vision["norm_type"] == "rms_norm" else nn.LayerNorm
        self.attn, self.mlp = _Attention(vision, fused), _MLP(vision)
        self.norm1, self.norm2 = norm(width, eps), norm(width, eps)
        self.ls1, self.ls2 = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width))

    def forward(self, x):
        x = x + self.attn(self.norm1(x)) * self.ls1
        return x + self.mlp(self.norm2(x)) * self.ls2


class _Vision(nn.Module):
    def __init__(self, vision: dict, fused: bool):
        super().__init__()
        self.embeddings, self.encoder = _Embeddings(vision), nn.Module()
        self.encoder.layers = nn.ModuleList(_Layer(vision, fused) for _ in range(vision["num_hidden_layers"]))

    def forward(self, pixels):
        x = self.embeddings(pixels)
        for layer in self.encoder.layers:
            x = layer(x)
        return x


def _projector(config: dict) -> nn.Sequential:
    wide = int(config["vision_config"]["hidden_size"] / config["downsample_ratio"] ** 2)
    width = config["llm_config"]["hidden_size"]
    return nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, width), nn.GELU(), nn.Linear(width, width))


def _shuffled(x, ratio: float):
    """[T, 1+P, C] -> [T, N, C / ratio^2], upstream's `pixel_shuffle` of version 2."""
    x = x[:, 1:]
    tiles, side = len(x), int(x.shape[1] ** 0.5)
    x = x.reshape(tiles, side, int(side * ratio), -1).permute(0, 2, 1, 3).contiguous()
    x = x.view(tiles, int(side * ratio), int(side * ratio), -1).permute(0, 2, 1, 3).contiguous()
    return x.reshape(tiles, -1, x.shape[-1])


class Reference:
    """The model on torch; bfloat16 on a card. Arguments and methods: see `ours.Ours`."""

    def __init__(self, device: str | None = None):
        cuda = torch.cuda.is_available() if device is None else device.startswith("gpu")
        self._device, self._dtype = ("cuda", torch.bfloat16) if cuda else ("cpu", torch.float32)

    def load(self, folder: Path, part: str, fused_attention: bool = False, int8: bool = False) -> None:
        """Load those parts of upstream's folder that `part` names."""
        self.config = read_config(folder)
        checkpoint = Checkpoint(folder)
        self.vision = self.mlp1 = self.language = None
        if part in ("vision", "all"):
            with torch.device("meta"):
                self.vision, self.mlp1 = _Vision(self.config["vision_config"], fused_attention), _projector(self.config)
            self._fill(self.vision, checkpoint, "vision_model.")
            self._fill(self.mlp1, checkpoint, "mlp1.")
        if part in ("language", "all"):
            self.language = self._language(checkpoint)
            if int8:
                self.language = torch.ao.quantization.quantize_dynamic(self.language, {nn.Linear}, torch.qint8)

    def _language(self, checkpoint: Checkpoint) -> nn.Module:
        text = native_config(self.config, None)["text_config"]
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**text), attn_implementation="sdpa")
        if self.config["llm_config"]["architectures"] == ["InternLM2ForCausalLM"]:
            self._fill_from_ours(model, CheckpointView(checkpoint, self.config))
        else:
            self._fill(model, checkpoint, "language_model.")
        model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config)  # its tables are no weights
        return model.eval().to(self._device)

    def _fill(self, module: nn.Module, checkpoint: Checkpoint, prefix: str) -> None:
        sources = {name: f"{prefix}{name}" for name in module.state_dict()}
        if prefix + "lm_head.weight" not in checkpoint.tensors and "lm_head.weight" in sources:  # tied
            sources["lm_head.weight"] = f"{prefix}model.embed_tokens.weight"
        module.load_state_dict({n: self._tensor(checkpoint, source) for n, source in sources.items()}, assign=True)
        module.eval()

    def _fill_from_ours(self, module: nn.Module, tensors: CheckpointView) -> None:
        state = {}
        for name in module.state_dict():
            array = tensors.floats(f"language_model.{name}")
            linear = array.ndim == 2 and "embed_tokens" not in name
            tensor = torch.from_numpy(array)
            state[name] = (tensor.T.contiguous() if linear else tensor).to(self._device, self._dtype)
        module.load_state_dict(state, assign=True)

    def _tensor(self, checkpoint: Checkpoint, name: str):
        with safe_open(checkpoint.tensors[name].file, framework="pt") as file:
            return file.get_tensor(name).to(self._device, self._dtype, copy=True)

    def prepare(self, kind: str, **numbers):
        """The function that does a stage of this kind once."""
        run = getattr(self, f"_{kind}")(**numbers)

        def timed():
            with torch.set_grad_enabled(kind == TRAINING_STEP):
                result = run()
            if self._device == "cuda":
                torch.cuda.synchronize()
            return result

        return timed

    @staticmethod
    def array(result) -> np.ndarray:
        """The result of a run as an array."""
        return result.detach().float().cpu().numpy()

    @property
    def stored_bits(self) -> int:
        """Bits of a float weight."""
        return 8 * self._dtype.itemsize

    @property
    def _vocabulary(self) -> int:
        return self.config["llm_config"]["vocab_size"]

    @property
    def _side(self) -> int:
        return tile_sizes(self.config).side

    def _to_tensor(self, array: np.ndarray):
        tensor = torch.from_numpy(array).to(self._device)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def _pixels(self, picture, max_num: int, side: int):
        """The model cards' `load_image`, with torchvision's ToTensor and Normalize written out."""
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        tiles = dynamic_preprocess(picture, max_num=max_num, image_size=side, use_thumbnail=True)
        made = []
        for tile in tiles:
            levels = torch.from_numpy(np.array(tile.convert("RGB").resize((side, side), 3)))
            made.append(levels.permute(2, 0, 1).contiguous().float().div(255).sub_(mean).div_(deviation))
        return torch.stack(made)

    def _preprocess(self, width: int, height: int, max_num: int):
        picture = inputs.picture(width, height)
        return lambda: self._pixels(picture, max_num, 448)

    def _vision(self, tiles: int):
        pixels = self._to_tensor(inputs.pixels(tiles, self._side))
        return lambda: self.vision(pixels)

    def _project(self, hidden):
        return self.mlp1(_shuffled(hidden, self.config["downsample_ratio"]))

    def _projector(self, tiles: int):
        width = self.config["vision_config"]["hidden_size"]
        hidden = self._to_tensor(inputs.features(tiles, tile_sizes(self.config).patches, width))
        return lambda: self._project(hidden)

    def _prefill(self, length: int):
        ids = self._to_tensor(inputs.token_ids(length, self._vocabulary))
        return lambda: self.language(ids, past_key_values=DynamicCache(), logits_to_keep=1).logits

    def _decode(self, length: int, tokens: int):
        ids, cache = self._to_tensor(inputs.token_ids(length + tokens, self._vocabulary)), DynamicCache()
        with torch.no_grad():
            self.language(ids[:, :length], past_key_values=cache, logits_to_keep=1)

        def run():
            cache.crop(length)
            for at in range(length, length + tokens):
                logits = self.language(ids[:, at : at + 1], past_key_values=cache).logits
            return logits

        return run

    def _answer(self, width: int, height: int, text: int, tokens: int):
        picture = inputs.picture(width, height)

        def run():
            pixels = self._pixels(picture, 12, self._side).to(self._device, self._dtype)
            visual = self._project(self.vision(pixels)).flatten(0, 1)
            ids = self._to_tensor(inputs.prompt(text, len(visual), self._vocabulary))
            embeds = self.language.get_input_embeddings()(ids)
            embeds[ids == inputs.image_token(self._vocabulary)] = visual
            return self.language.generate(
                inputs_embeds=embeds, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens,
                min_new_tokens=tokens, eos_token_id=None, pad_token_id=0,
            )  # fmt: skip

        return run

    def _training_step(self, recipe: dict, tiles: int, text: int):
        tile = tile_sizes(self.config)
        batch = inputs.training_batch(tiles, text, tile.tokens, tile.side, self._vocabulary)
        tensors = {name: self._to_tensor(batch[name]) for name in ("input_ids", "labels", "pixel_values")}
        return training_step(
            {"vision": self.vision, "projector": self.mlp1, "language": self.language}, recipe, self._project, tensors
        )
