"""Layer placement: one model on several devices of one process, by a `device_map`.

In: a config and a `device_map` as on the model cards, or 'auto'. Out: a `Placement`, and a model whose blocks compute
on their devices. A block (an embedding, a layer, the projector, a norm, the head) is on one device as a whole. For
inference only: the copies between devices have no gradient. Not run on cards: tests record the devices on a CPU.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path

import paddle
from paddle import nn

from convert.folder import read_config
from convert.mappings import paddle_config
from paddle_internvl import runtime
from paddle_internvl.ops import devices

_LLM = "language_model."
_ALIASES = {"model.tok_embeddings": "model.embed_tokens", "output": "lm_head"}  # InternLM2's names -> ours
_WITHOUT_WEIGHTS = ("model.rotary_emb",)  # newer model cards list it
_BLOCKS = (  # patterns of the blocks' names, in the order of computation
    r"vision_model\.embeddings",
    r"vision_model\.encoder\.layers\.\d+",
    r"mlp1",
    r"language_model\.model\.embed_tokens",
    r"language_model\.model\.layers\.\d+",
    r"language_model\.model\.norm",
    r"language_model\.lm_head",
)
_TO_HOME = ("mlp1", f"{_LLM}lm_head")  # blocks whose outputs are used outside of blocks


def split_model(model, world_size: int | None = None) -> dict[str, int]:
    """The model cards' `device_map` over several cards.

    The decoder's layers are split into equal runs; the first card has half as many and the vision tower, the embedding,
    the norm, the head and the last layer.

    Args:
        model: a config, its dict, a checkpoint folder or a config.json.
        world_size: number of cards; None: those of this machine.
    Returns:
        A `device_map` for `from_pretrained`.
    Raises:
        ValueError: fewer than one card.
    Source: `split_model` on upstream's model cards, which has a table of layers by model name.
    """
    if isinstance(model, (str, os.PathLike)):
        model = paddle_config(read_config(Path(model)))
    llm = model["llm_config"] if isinstance(model, Mapping) else model.llm_config
    layers = llm["num_hidden_layers"] if isinstance(llm, Mapping) else llm.num_hidden_layers
    if world_size is None:
        world_size = paddle.device.cuda.device_count()
    if world_size < 1:
        raise ValueError("split_model needs a CUDA card, or a world_size of at least 1")
    per_card = math.ceil(layers / (world_size - 0.5))
    runs = [math.ceil(per_card * 0.5), *[per_card] * (world_size - 1)]
    cards = [card for card, count in enumerate(runs) for _ in range(count)][:layers]
    cards[-1] = 0  # with the head, as on the model cards
    ends = ("vision_model", "mlp1", f"{_LLM}model.embed_tokens", f"{_LLM}model.norm", f"{_LLM}lm_head")
    return dict.fromkeys(ends, 0) | {f"{_LLM}model.layers.{i}": card for i, card in enumerate(cards)}


@dataclass(frozen=True)
class Placement:
    """Devices of parameters and layers, by prefixes of their names.

    Attributes:
        devices: prefix of a name -> device; '' is a prefix of every name.
    """

    devices: Mapping[str, str]

    def device(self, name: str) -> str:
        """The device of a parameter or layer: that of the longest matching prefix.

        Raises:
            ValueError: no prefix matches.
        """
        parts = name.split(".")
        for count in range(len(parts), -1, -1):
            found = self.devices.get(".".join(parts[:count]))
            if found is not None:
                return found
        raise ValueError(f"device_map has no entry for {name}; add it, or '' for all other names")

    def __str__(self) -> str:
        """Names of the devices."""
        return ", ".join(sorted(set(self.devices.values())))

    @property
    def several(self) -> bool:
        """Whether there is more than one device."""
        return len(set(self.devices.values())) > 1

    @property
    def home(self) -> str:
        """Device of everything outside of blocks: inputs, masks, logits, sampling."""
        embedding = f"{_LLM}model.embed_tokens"
        return self.device(embedding if self.several else next(iter(self.devices)))


def choose_placement(device_map, device: str | None, config) -> Placement:
    """The placement of a model that is to be loaded.

    Args:
        device_map: None; 'auto': `split_model` where there are several cards; one device; or a dict of devices, as
            indices of cards, 'cpu' or 'cuda:1'.
        device: the single device, where device_map is None or 'auto'.
        config: of the model.
    Raises:
        ValueError: a device that does not exist, a CPU among cards, an unknown name, a block on two devices, or a
            parameter without a device.
    """
    if device_map == "auto" and device is None and paddle.device.cuda.device_count() > 1:
        device_map = split_model(config)
    if device_map in (None, "auto"):
        return Placement({"": _name(runtime.choose_device(device))})
    if not isinstance(device_map, Mapping):
        return Placement({"": runtime.choose_device(_name(device_map))})
    placed = {name: runtime.choose_device(_name(each)) for name, each in device_map.items()}
    if not placed:
        raise ValueError("device_map is empty; name devices, or use 'auto'")
    if len(set(placed.values())) == 1:
        return Placement({"": next(iter(placed.values()))})
    return Placement(_checked(placed, config))


def _name(device) -> str:
    """A value of a device_map as 'cpu' or 'gpu:<index>'."""
    name = f"gpu:{device}" if isinstance(device, int) else str(device).replace("cuda", "gpu")
    return "gpu:0" if name == "gpu" else name


def _checked(placed: dict[str, str], config) -> dict[str, str]:
    if not hasattr(config, "llm_config"):
        raise ValueError(f"device_map over several devices is for InternVL chat models, not a {config.model_type}")
    if "cpu" in placed.values():
        raise ValueError("device_map puts parts on the CPU beside cards; a CPU can't compute in the cards' dtype")
    cards = paddle.device.cuda.device_count()
    for name, device in placed.items():
        if int(device.partition(":")[2]) >= cards:
            raise ValueError(f"device_map puts {name!r} on {device}, but there are {cards} cards")
    layers, checked = config.llm_config.num_hidden_layers, {}
    for name, device in placed.items():
        inner = name.removeprefix(_LLM) if name.startswith(_LLM) else ""
        layer = re.fullmatch(r"model\.layers\.(\d+)", inner)
        if inner in _WITHOUT_WEIGHTS or (layer and int(layer[1]) >= layers):
            continue  # the model cards' code lists layers beyond the last one
        checked[_LLM + _ALIASES[inner] if inner in _ALIASES else name] = device
    return checked


def blocks_of(model: nn.Layer, placement: Placement) -> dict[str, nn.Layer]:
    """The blocks of a model, by name.

    Raises:
        ValueError: an entry that matches no part of the model, a part without an entry, or a block on two devices.
    """
    layers = dict(model.named_sublayers())
    blocks = {name: layer for name, layer in layers.items() if any(re.fullmatch(b, name) for b in _BLOCKS)}
    names = layers.keys() | {name for name, _ in model.named_parameters()}
    for entry in placement.devices:
        if entry and entry not in names:
            raise ValueError(f"device_map has {entry!r}, which is no part of the model")
        block = next((name for name in blocks if entry.startswith(f"{name}.")), None)
        if block and placement.device(entry) != placement.device(block):
            raise ValueError(f"device_map splits {block}: {entry} is on another device")
    for name, _ in model.named_parameters():
        placement.device(name)
    return blocks


def install(model: nn.Layer, blocks: Mapping[str, nn.Layer], placement: Placement) -> None:
    """Let every block of a filled model compute on its device; KV caches are on the devices of their layers."""
    for name, layer in blocks.items():
        home = placement.home if name in _TO_HOME else None
        layer.forward = _placed(layer.forward, placement.device(name), home)
    decoder = model.language_model
    count = decoder.config.num_hidden_layers
    decoder.layer_devices = tuple(placement.device(f"{_LLM}model.layers.{i}") for i in range(count))


def _placed(forward, device: str, home: str | None):
    """A block's forward on its device; its output is copied to `home`, unless that is None."""

    @wraps(forward)
    def run(*inputs, **named):
        with devices.on(device):
            inputs = [devices.to_device(value, device) for value in inputs]
            out = forward(*inputs, **{name: devices.to_device(value, device) for name, value in named.items()})
        return out if home is None else devices.to_device(out, home)

    return run
