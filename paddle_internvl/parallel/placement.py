"""One process on several devices: which block lies where, and what carries hidden states from one to the next.

In: a config and a `device_map` as on the model cards, or 'auto'. Out: a `Placement`, and a model whose blocks compute
where they lie. A block is what is never taken apart: an embedding, a layer, the projector, a norm, the head. Only for
inference: the copies between cards have no gradient.

Nothing of it has run on cards: routing is tested on a CPU, with moves that are only noted down.
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
_WITHOUT_WEIGHTS = ("model.rotary_emb",)  # what newer cards' maps name besides
_BLOCKS = (  # what lies on one device as a whole; in the order of computation
    r"vision_model\.embeddings",
    r"vision_model\.encoder\.layers\.\d+",
    r"mlp1",
    r"language_model\.model\.embed_tokens",
    r"language_model\.model\.layers\.\d+",
    r"language_model\.model\.norm",
    r"language_model\.lm_head",
)
_GO_HOME = ("mlp1", f"{_LLM}lm_head")  # blocks whose results are used outside of blocks


def split_model(model, world_size: int | None = None) -> dict[str, int]:
    """The model cards' placement over several cards: the decoder's layers in equal runs, the first card with half as
    many beside the vision tower; what is at the decoder's two ends, its last layer included, on the first card.

    Args:
        model: a config, its dict, a checkpoint folder or a config.json. world_size: cards; None: those of this machine.
    Returns:
        A `device_map` for `from_pretrained`.
    Raises:
        ValueError: fewer than one card.
    Source: `split_model` on upstream's model cards, which looks the number of layers up by the model's name.
    """
    if isinstance(model, (str, os.PathLike)):
        model = paddle_config(read_config(Path(model)))
    llm = model["llm_config"] if isinstance(model, Mapping) else model.llm_config
    layers = llm["num_hidden_layers"] if isinstance(llm, Mapping) else llm.num_hidden_layers
    if world_size is None:
        world_size = paddle.device.cuda.device_count()
    if world_size < 1:
        raise ValueError("split_model needs a CUDA card, or a world_size of at least 1")
    each = math.ceil(layers / (world_size - 0.5))
    runs = [math.ceil(each * 0.5), *[each] * (world_size - 1)]
    owners = [card for card, count in enumerate(runs) for _ in range(count)][:layers]
    owners[-1] = 0  # the first and last layers together, as the cards have it
    ends = ("vision_model", "mlp1", f"{_LLM}model.embed_tokens", f"{_LLM}model.norm", f"{_LLM}lm_head")
    return dict.fromkeys(ends, 0) | {f"{_LLM}model.layers.{i}": card for i, card in enumerate(owners)}


@dataclass(frozen=True)
class Placement:
    """Devices by the beginnings of parameters' names.

    Attributes:
        devices: beginning of a name -> device; '' is the beginning of every one.
    """

    devices: Mapping[str, str]

    def device(self, name: str) -> str:
        """The device of a parameter or layer.

        Raises:
            ValueError: no entry covers it.
        """
        parts = name.split(".")
        for count in range(len(parts), -1, -1):
            found = self.devices.get(".".join(parts[:count]))
            if found is not None:
                return found
        raise ValueError(f"device_map says nothing of {name}; add it, or '' for all that is not named")

    def __str__(self) -> str:
        """The devices' names."""
        return ", ".join(sorted(set(self.devices.values())))

    @property
    def several(self) -> bool:
        """Whether there is more than one device."""
        return len(set(self.devices.values())) > 1

    @property
    def home(self) -> str:
        """Where everything is that belongs to no block: inputs, masks, logits, sampling."""
        embedding = f"{_LLM}model.embed_tokens"
        return self.device(embedding if self.several else next(iter(self.devices)))


def choose_placement(device_map, device: str | None, config) -> Placement:
    """Where a model is to lie.

    Args:
        device_map: None; 'auto': as `split_model` where there are several cards; one device; or a dict of them, as
            indices of cards, 'cpu' or 'cuda:1'. device: the one device, where device_map is None or 'auto'.
        config: the model's.
    Raises:
        ValueError: a device that is not there, a CPU among cards, an unknown name, a block on two devices, or a
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
    """A device_map's value in our spelling."""
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
    layers, ours = config.llm_config.num_hidden_layers, {}
    for name, device in placed.items():
        inner = name.removeprefix(_LLM) if name.startswith(_LLM) else ""
        layer = re.fullmatch(r"model\.layers\.(\d+)", inner)
        if inner in _WITHOUT_WEIGHTS or (layer and int(layer[1]) >= layers):
            continue  # the cards' own code counts on beyond the last layer
        ours[_LLM + _ALIASES[inner] if inner in _ALIASES else name] = device
    return ours


def blocks_of(model: nn.Layer, placement: Placement) -> dict[str, nn.Layer]:
    """The blocks of a model, by name, all of which the placement can keep whole.

    Raises:
        ValueError: an entry that names no part of the model, a part without an entry, or a block on two devices.
    """
    layers = dict(model.named_sublayers())
    blocks = {name: layer for name, layer in layers.items() if any(re.fullmatch(b, name) for b in _BLOCKS)}
    names = layers.keys() | {name for name, _ in model.named_parameters()}
    for entry in placement.devices:
        if entry and entry not in names:
            raise ValueError(f"device_map names {entry!r}, which is no part of the model")
        inside = next((name for name in blocks if entry.startswith(f"{name}.")), None)
        if inside and placement.device(entry) != placement.device(inside):
            raise ValueError(f"device_map takes {inside} apart: {entry} lies elsewhere")
    for name, _ in model.named_parameters():
        placement.device(name)
    return blocks


def install(model: nn.Layer, blocks: Mapping[str, nn.Layer], placement: Placement) -> None:
    """Let every block of a filled model compute where it lies; KV caches lie with their layers."""
    for name, layer in blocks.items():
        home = placement.home if name in _GO_HOME else None
        layer.forward = _placed(layer.forward, placement.device(name), home)
    decoder = model.language_model
    count = decoder.config.num_hidden_layers
    decoder.layer_devices = tuple(placement.device(f"{_LLM}model.layers.{i}") for i in range(count))


def _placed(forward, device: str, home: str | None):
    """A block's forward on its device, whose result goes `home` if that is given."""

    @wraps(forward)
    def run(*inputs, **named):
        with devices.on(device):
            inputs = [devices.to_device(value, device) for value in inputs]
            out = forward(*inputs, **{name: devices.to_device(value, device) for name, value in named.items()})
        return out if home is None else devices.to_device(out, home)

    return run
