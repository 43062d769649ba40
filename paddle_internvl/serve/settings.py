"""Settings of the server in one dataclass, read from flags, a YAML file and the environment.

In: parsed arguments, a file. Out: checked `Settings`. A setting's flag is its name with dashes, its YAML key its name;
flags override the file, the file overrides the defaults. Imports no other part of the server, so that the command line
shows its help at once.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

from convert.command_line import LOG_LEVELS
from paddle_internvl.engine.config import QUANTIZATIONS
from paddle_internvl.media.limits import MediaLimits

KEYS_VARIABLE = "PADDLE_INTERNVL_API_KEYS"
# type of a setting -> its name in error messages
_TYPE_NAMES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "switch: true or false",
    tuple[str, ...]: "list of texts",
    tuple[int, ...]: "list of whole numbers",
}
# first setting of a group -> the group's title in --help
_GROUPS = {
    "server_name": "address and name",
    "session_len": "model and engine",
    "api_keys": "who may ask",
    "default_max_tokens": "limits of requests",
    "max_connections": "connections",
    "max_images": "media",
}
_MEDIA = {limit.name: limit.default for limit in fields(MediaLimits)}


def _setting(default, help: str, minimum: float = -math.inf, maximum: float = math.inf, repr: bool = True):
    return field(default=default, metadata={"help": help, "minimum": minimum, "maximum": maximum}, repr=repr)


@dataclass(frozen=True)
class Settings:
    """Settings of a server, described by the `help` of each field.

    Raises:
        ValueError: a value of the wrong type or range; names the setting.
    """

    server_name: str = _setting("127.0.0.1", "address to listen on")
    server_port: int = _setting(23333, "port to listen on; 0 for any free one", 0, 65535)
    served_model_name: str | None = _setting(None, "the model's name in requests (default: the folder's)")
    log_level: str = _setting("info", f"one of {', '.join(LOG_LEVELS)}")
    session_len: int | None = _setting(None, "the most tokens of prompt and answer (default: the model's)", 2)
    max_batch_size: int = _setting(16, "answers decoded together", 1)
    cache_tokens: int | None = _setting(
        None, "positions of the KV cache, shared by all answers (default: by the free memory)", 1
    )
    cache_max_entry_count: float = _setting(
        0.25, "share of the free memory for the KV cache, at most, without cache_tokens", 0.001, 1
    )
    cuda_graph: bool = _setting(False, "capture decode steps as CUDA graphs and play them again; needs one card")
    tp: int = _setting(1, "cards that share the model, a process each", 1)
    dtype: str | None = _setting(None, "bfloat16, float16 or float32 (default: the best the device has)")
    device: str | None = _setting(None, "cpu, gpu or gpu:1 (default: gpu where there is one)")
    quantization: str | None = _setting(
        None, f"{' or '.join(QUANTIZATIONS)}: weights in few bits (default: as they are)"
    )
    quantize_head: bool = _setting(False, "with quantization: the output head in few bits too")
    int8_activations: bool = _setting(False, "on a CPU: prefill and vision in int8; needs quantized weights")
    adapter: str | None = _setting(None, "folder of a LoRA adapter, merged while loading (default: none)")
    api_keys: tuple[str, ...] = _setting(
        (), f"keys of which requests must bring one; @FILE reads them from a file (also: ${KEYS_VARIABLE})", repr=False
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (), "Host headers that are accepted besides this machine's (default: any, but none on a loopback address)"
    )
    allow_origins: tuple[str, ...] = _setting((), "origins whose pages may call the server (CORS); none by default")
    disable_pages: bool = _setting(False, "serve no page at / and no Swagger UI at /docs")
    default_max_tokens: int = _setting(1024, "tokens of an answer where the request names no limit", 1)
    max_total_tiles: int | None = _setting(None, "the most tiles of all pictures of a request (default: any)", 1)

    max_concurrent_requests: int = _setting(64, "requests in work at once; more are answered 429", 1)
    queue_size: int = _setting(64, "answers that may wait for the engine; more are answered 429", 1)
    queue_timeout: float = _setting(
        120.0, "seconds a request may wait for a token, the first or another; then 503", 0.001
    )
    media_threads: int = _setting(2, "threads that decode and tile media and tokenize", 1)
    drain_timeout: float = _setting(30.0, "seconds that running requests have after SIGTERM", 0)

    max_connections: int = _setting(512, "open connections; above, those that wait for a request are closed", 1)
    header_timeout: float = _setting(10.0, "seconds a client may take to send a request's headers", 0.001)
    body_timeout: float = _setting(60.0, "seconds a client may take to send a request's body; then 408", 0.001)
    send_timeout: float = _setting(30.0, "seconds a client may leave its answer unread; then it is cancelled", 0.001)
    comment_interval: float = _setting(
        15.0, "seconds after which a stream without a new event gets a comment, so that proxies keep it open", 0.001
    )
    keep_alive_timeout: int = _setting(5, "seconds an idle connection is kept", 1)
    max_body_bytes: int = _setting(64 << 20, "bytes of a request's body; more are answered 413", 1)
    max_pending_bytes: int = _setting(
        _MEDIA["max_pending_bytes"],
        "bytes of all requests in work, and of their fetched media; more are answered 429",
        1,
    )
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
        object.__setattr__(self, "log_level", self.log_level.lower())  # LMDeploy writes INFO
        if self.quantization not in (None, *QUANTIZATIONS):
            raise ValueError(f"quantization={self.quantization!r} is not known; known: {', '.join(QUANTIZATIONS)}")
        if self.log_level not in LOG_LEVELS:
            raise ValueError(f"log_level={self.log_level!r} is not known; known: {', '.join(LOG_LEVELS)}")

    def media_limits(self) -> MediaLimits:
        """The limits of media; limits without a setting have their defaults.

        Raises:
            ValueError: an invalid host, or a folder that does not exist.
        """
        limits = {limit.name: getattr(self, limit.name) for limit in fields(MediaLimits) if hasattr(self, limit.name)}
        return MediaLimits(
            remote=not self.disable_remote_media,
            allowed_domains=self.allowed_media_domains,
            allow_ports=self.allowed_media_ports,
            allowed_local_path=self.allowed_local_media_path,
            **limits,
        )

    @property
    def is_exposed(self) -> bool:
        """Whether other machines reach the server without an API key."""
        return not is_loopback(self.server_name) and not self.api_keys

    @property
    def accepted_hosts(self) -> tuple[str, ...] | None:
        """Host names that requests may name besides this machine's; None: any."""
        hosts = tuple(host.lower().rstrip(".") for host in self.allowed_hosts)
        return hosts if hosts or is_loopback(self.server_name) else None


def is_loopback(server_name: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(server_name).is_loopback
    except ValueError:
        return server_name == "localhost"


@cache
def _types() -> dict[str, tuple[type, bool]]:
    """Type of each setting without `| None`, and whether None is allowed."""
    return {
        name: (hint, False) if hint in _TYPE_NAMES else (get_args(hint)[0], True)
        for name, hint in get_type_hints(Settings).items()
    }


def _is_of(value, kind) -> bool:
    if get_origin(kind) is tuple:
        return type(value) is tuple and all(type(item) is get_args(kind)[0] for item in value)
    return type(value) is kind


def _checked(setting: Field, value):
    kind, optional = _types()[setting.name]
    if value is None and optional:
        return None
    if kind is float and type(value) is int:
        value = float(value)
    if isinstance(value, list):
        value = tuple(value)
    shown = repr(value) if setting.repr else "(hidden)"
    if not _is_of(value, kind):
        raise ValueError(f"{setting.name}={shown} is no {_TYPE_NAMES[kind]}")
    minimum, maximum = setting.metadata["minimum"], setting.metadata["maximum"]
    if kind in (int, float) and not minimum <= value <= maximum:
        raise ValueError(f"{setting.name}={shown} is outside [{minimum}, {maximum}]")
    return value


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting; a flag that is not given leaves no attribute in the parsed arguments."""
    parser.add_argument("--config", type=Path, metavar="YAML", help="file of settings; flags override it")
    for setting in fields(Settings):
        if setting.name in _GROUPS:
            group = parser.add_argument_group(_GROUPS[setting.name])
        kind, _ = _types()[setting.name]
        default = "" if setting.default in (None, (), False) else f" (default: {setting.default})"
        if setting.name == "log_level":
            options = {"type": str.lower, "choices": LOG_LEVELS}  # as the flag of every other command
        elif kind is bool:
            options = {"action": "store_true"}
        elif get_origin(kind) is tuple:
            options = {"nargs": "+", "type": get_args(kind)[0], "metavar": "X"}
        else:
            options = {"type": kind, "metavar": {str: "TEXT", int: "N", float: "NUMBER"}[kind]}
        flag = f"--{setting.name.replace('_', '-')}"
        group.add_argument(flag, default=argparse.SUPPRESS, help=setting.metadata["help"] + default, **options)


def from_arguments(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings of a parsed command line.

    Args:
        arguments: of a parser with `add_flags`.
        environment: for API keys.
    Raises:
        ValueError: an unknown or invalid setting.
        FileNotFoundError: a file that does not exist.
    """
    flags = vars(arguments)
    values = from_yaml(arguments.config) if arguments.config else {}
    if KEYS_VARIABLE in environment:  # an empty one is an error: the server would be open
        values["api_keys"] = [key.strip() for key in environment[KEYS_VARIABLE].split(",")]
    values |= {setting.name: flags[setting.name] for setting in fields(Settings) if setting.name in flags}
    if values.get("api_keys"):
        values["api_keys"] = [key for item in values["api_keys"] for key in _keys(item)]
    return Settings(**values)


def from_yaml(file: Path) -> dict:
    """The settings of a YAML file, unchecked.

    Raises:
        ValueError: no mapping, or an unknown setting; lists the settings.
    """
    import yaml

    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {error}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds no settings; write lines like 'server_port: 23333'")
    known = [setting.name for setting in fields(Settings)]
    unknown = [str(name) for name in values if name not in known]
    if unknown:
        raise ValueError(f"{file}: {unknown[0]!r} is no setting; known: {', '.join(known)}")
    return values


def _keys(item: str) -> list[str]:
    """The API keys of an item: the item itself, or the lines of the file after an @."""
    if not isinstance(item, str) or not item.strip():
        raise ValueError(f"api_keys holds an empty key or one that is no text; check --api-keys and ${KEYS_VARIABLE}")
    if not item.startswith("@"):
        return [item]
    keys = [line.strip() for line in Path(item[1:]).expanduser().read_text(encoding="utf-8").splitlines()]
    keys = [key for key in keys if key and not key.startswith("#")]
    if not keys:
        raise ValueError(f"{item[1:]} holds no key")
    return keys
