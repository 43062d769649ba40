"""Every setting of the server in one dataclass, and the ways to it: flags, a YAML file, the environment.

In: parsed arguments, a file. Out: `Settings`, checked. A setting's flag is its name with dashes, its YAML key its name;
flags are stronger than the file, the file is stronger than the defaults. Imports no other part of the server, so that
the command line can show its help at once.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path

from paddle_internvl.media.limits import MediaLimits

KEYS_VARIABLE = "PADDLE_INTERNVL_API_KEYS"
# a field's type -> how it is called, its type, and that of its items
_TYPES = {
    "str": ("text", str, None),
    "int": ("whole number", int, None),
    "float": ("number", float, None),
    "bool": ("switch: true or false", bool, None),
    "tuple[str, ...]": ("list of texts", tuple, str),
    "tuple[int, ...]": ("list of whole numbers", tuple, int),
}
_MEDIA = {limit.name: limit.default for limit in fields(MediaLimits)}
_LOCAL = ("127.0.0.1", "localhost", "::1")
LOG_LEVELS = ("debug", "info", "warning", "error")


def _setting(default, help: str, low: float | None = None, high: float = math.inf, **more):
    return field(default=default, metadata={"help": help, "low": low, "high": high}, **more)


@dataclass(frozen=True)
class Settings:
    """Settings of a server; `help` of each field says what it is. Raises ValueError for one that can't be."""

    server_name: str = _setting("127.0.0.1", "address to listen on")
    server_port: int = _setting(23333, "port to listen on; 0 for any free one", 0, 65535)
    served_model_name: str | None = _setting(None, "the model's name in requests (default: the folder's)")
    log_level: str = _setting("info", f"one of {', '.join(LOG_LEVELS)}")
    session_len: int | None = _setting(None, "the most tokens of prompt and answer (default: the model's)", 2)
    max_batch_size: int = _setting(16, "answers decoded together", 1)
    cache_tokens: int | None = _setting(
        None, "positions of the KV cache, shared by all answers (default: by the free memory)", 1
    )
    cuda_graph: bool = _setting(False, "capture decode steps as CUDA graphs and play them again; needs one card")
    tp: int = _setting(1, "cards that share the model, a process each", 1)
    dtype: str | None = _setting(None, "bfloat16, float16 or float32 (default: the best the device has)")
    device: str | None = _setting(None, "cpu, gpu or gpu:1 (default: gpu where there is one)")
    api_keys: tuple[str, ...] = _setting(
        (), f"keys of which requests must bring one; @FILE reads them from a file (also: ${KEYS_VARIABLE})", repr=False
    )
    allow_origins: tuple[str, ...] = _setting((), "origins whose pages may call the server (CORS); none by default")
    default_max_tokens: int = _setting(1024, "tokens of an answer where the request names no limit", 1)
    max_total_tiles: int | None = _setting(None, "the most tiles of all pictures of a request (default: any)", 1)

    max_concurrent_requests: int = _setting(64, "requests in work at once; more are answered 429", 1)
    queue_size: int = _setting(64, "answers that may wait for the engine; more are answered 429", 1)
    queue_timeout: float = _setting(
        120.0, "seconds a request may wait for a token, the first or another; then 503", 0.001
    )
    media_threads: int = _setting(2, "threads that decode and tile media and tokenize", 1)
    drain_timeout: float = _setting(30.0, "seconds that running requests have after SIGTERM", 0)

    max_connections: int = _setting(512, "open connections", 1)
    header_timeout: float = _setting(10.0, "seconds a client may take to send a request's headers", 0.001)
    body_timeout: float = _setting(60.0, "seconds a client may take to send a request's body; then 408", 0.001)
    send_timeout: float = _setting(30.0, "seconds a client may leave its answer unread; then it is cancelled", 0.001)
    keep_alive_timeout: int = _setting(5, "seconds an idle connection is kept", 1)
    max_body_bytes: int = _setting(64 << 20, "bytes of a request's body; more are answered 413", 1)
    max_pending_bytes: int = _setting(512 << 20, "bytes of all requests in work; more are answered 429", 1)
    max_json_values: int = _setting(500_000, "values and members of a request's JSON; more are answered 413", 1)

    max_images: int = _setting(_MEDIA["max_images"], "pictures of a request", 0)
    max_videos: int = _setting(_MEDIA["max_videos"], "clips of a request", 0)
    max_image_bytes: int = _setting(_MEDIA["max_image_bytes"], "bytes of a picture", 1)
    max_video_bytes: int = _setting(_MEDIA["max_video_bytes"], "bytes of a clip", 1)
    max_image_pixels: int = _setting(_MEDIA["max_image_pixels"], "pixels of a picture or frame", 1)
    max_tiles_per_picture: int = _setting(_MEDIA["max_tiles_per_picture"], "tiles a picture may ask for", 1)
    max_frames: int = _setting(_MEDIA["max_frames"], "frames that may be taken from a clip", 1)
    allowed_media_domains: tuple[str, ...] = _setting((), "hosts that media are fetched from (default: any public one)")
    allowed_media_ports: tuple[int, ...] = _setting((), "further ports than 80 and 443 that media are fetched from")
    allowed_local_media_path: str | None = _setting(None, "folder that file:// URLs may name files of (default: none)")
    disable_remote_media: bool = _setting(False, "fetch no URL; media come as data URLs only")

    def __post_init__(self):
        for setting in fields(self):
            object.__setattr__(self, setting.name, _checked(setting, getattr(self, setting.name)))
        if self.log_level not in LOG_LEVELS:
            raise ValueError(f"log_level={self.log_level!r} is not known; known: {', '.join(LOG_LEVELS)}")

    def media_limits(self) -> MediaLimits:
        """The ceilings of media; those without a setting are as `MediaLimits` has them.

        Raises:
            ValueError: a host or folder that is none.
        """
        same = {limit.name: getattr(self, limit.name) for limit in fields(MediaLimits) if hasattr(self, limit.name)}
        return MediaLimits(
            remote=not self.disable_remote_media,
            allowed_domains=self.allowed_media_domains,
            allow_ports=self.allowed_media_ports,
            allowed_local_path=self.allowed_local_media_path,
            **same,
        )

    @property
    def open_to_strangers(self) -> bool:
        """Whether other machines reach the server and need no key."""
        return self.server_name not in _LOCAL and not self.api_keys


def _base(setting: Field) -> tuple[str, bool]:
    """A setting's type without `| None`, and whether it had that."""
    base, _, rest = setting.type.partition(" | ")
    return base, rest == "None"


def _checked(setting: Field, value):
    base, optional = _base(setting)
    if value is None and optional:
        return None
    called, kind, items = _TYPES[base]
    if kind is float and type(value) is int:
        value = float(value)
    if kind is tuple and isinstance(value, list):
        value = tuple(value)
    shown = repr(value) if setting.repr else "(hidden)"
    if type(value) is not kind or (items and any(type(item) is not items for item in value)):
        raise ValueError(f"{setting.name}={shown} is no {called}")
    low, high = setting.metadata["low"], setting.metadata["high"]
    if low is not None and not low <= value <= high:
        raise ValueError(f"{setting.name}={shown} is outside [{low}, {high}]")
    return value


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for every setting; those not given leave no trace in the parsed arguments."""
    parser.add_argument("--config", type=Path, metavar="YAML", help="file of settings; flags are stronger")
    for setting in fields(Settings):
        _, kind, items = _TYPES[_base(setting)[0]]
        default = "" if setting.default in (None, (), False) else f" (default: {setting.default})"
        how = {bool: {"action": "store_true"}, tuple: {"nargs": "*", "type": items, "metavar": "X"}}.get(
            kind, {"type": kind, "metavar": {str: "TEXT", int: "N", float: "SECONDS"}.get(kind)}
        )
        parser.add_argument(
            f"--{setting.name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            help=setting.metadata["help"] + default,
            **how,
        )


def from_arguments(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings of a parsed command line.

    Raises:
        ValueError: a setting that is not known or can't be. FileNotFoundError: a file that is not there.
    """
    given = vars(arguments)
    chosen = from_yaml(arguments.config) if arguments.config else {}
    if environment.get(KEYS_VARIABLE):
        chosen["api_keys"] = [key.strip() for key in environment[KEYS_VARIABLE].split(",")]
    chosen |= {setting.name: given[setting.name] for setting in fields(Settings) if setting.name in given}
    if chosen.get("api_keys"):
        chosen["api_keys"] = [key for item in chosen["api_keys"] for key in _keys(item)]
    return Settings(**chosen)


def from_yaml(file: Path) -> dict:
    """What a YAML file sets.

    Raises:
        ValueError: no mapping, or a key that is no setting; lists those there are.
    """
    import yaml

    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {error}") from None
    read = {} if read is None else read
    if not isinstance(read, dict):
        raise ValueError(f"{file} holds no settings; write lines like 'server_port: 23333'")
    known = [setting.name for setting in fields(Settings)]
    unknown = [str(name) for name in read if name not in known]
    if unknown:
        raise ValueError(f"{file}: {unknown[0]!r} is no setting; known: {', '.join(known)}")
    return read


def _keys(item: str) -> list[str]:
    """The keys that an item stands for: itself, or the lines of the file it names."""
    if not isinstance(item, str) or not item:
        raise ValueError("api_keys holds an empty key or one that is no text")
    if not item.startswith("@"):
        return [item]
    keys = [line.strip() for line in Path(item[1:]).expanduser().read_text(encoding="utf-8").splitlines()]
    keys = [key for key in keys if key and not key.startswith("#")]
    if not keys:
        raise ValueError(f"{item[1:]} holds no key")
    return keys
