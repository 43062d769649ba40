"""The whole model's config, in upstream's spelling or, to be read only, in transformers' own."""

from __future__ import annotations

from convert.mappings import paddle_config
from convert.sizes import TileSizes, tile_sizes
from paddle_internvl.configuration.decoder import DecoderConfig
from paddle_internvl.configuration.upstream import UpstreamConfig, require, require_divides
from paddle_internvl.configuration.vision import InternVisionConfig


class InternVLChatConfig(UpstreamConfig):
    """The whole model: a vision tower, a projector and a language model.

    Args (upstream's `configuration_internvl_chat.py`):
        vision_config: of the vision tower, a config or its dict.
        llm_config: of the language model, a config or its dict.
        select_layer: which vision layer feeds the projector; -1 is the last, others index [embeddings, layer 1, ...].
        force_image_size: S, tile side in pixels; None: `vision_config.image_size`.
        downsample_ratio: side of the visual token grid over the side of the patch grid, 1 / n.
        template: name of the conversation template.
        dynamic_image_size: whether pictures are cut into tiles. ("Patch" is upstream's word for a tile here.)
        use_thumbnail: whether a picture of several tiles gets a thumbnail tile.
        ps_version: order of the pixel shuffle, 'v1' or 'v2'.
        min_dynamic_patch: fewest tiles of a picture.
        max_dynamic_patch: most tiles of a picture.
        pad2square: pictures padded to squares before tiling; only False is supported.
    Raises:
        ValueError: a value that is not supported; names the field.
    """

    model_type = "internvl_chat"
    is_composition = True

    def __init__(
        self,
        vision_config: InternVisionConfig | dict | None = None,
        llm_config: DecoderConfig | dict | None = None,
        select_layer: int = -1,
        force_image_size: int | None = None,
        downsample_ratio: float = 0.5,
        template: str | None = None,
        dynamic_image_size: bool = False,
        use_thumbnail: bool = False,
        ps_version: str = "v1",
        min_dynamic_patch: int = 1,
        max_dynamic_patch: int = 6,
        pad2square: bool = False,
        **upstream,
    ):
        upstream.update(tie_word_embeddings=False)
        upstream.pop("quantization_config", None)  # see DecoderConfig
        upstream.setdefault("architectures", ["InternVLChatModel"])
        super().__init__(**upstream)
        if not isinstance(vision_config, InternVisionConfig):
            vision_config = InternVisionConfig(**_without_model_type(vision_config))
        if not isinstance(llm_config, DecoderConfig):
            llm_config = DecoderConfig(**_without_model_type(llm_config))
        self.vision_config = vision_config
        self.llm_config = llm_config
        self.select_layer = select_layer
        self.force_image_size = force_image_size
        self.downsample_ratio = downsample_ratio
        self.template = template
        self.dynamic_image_size = dynamic_image_size
        self.use_thumbnail = use_thumbnail
        self.ps_version = ps_version
        self.min_dynamic_patch = min_dynamic_patch
        self.max_dynamic_patch = max_dynamic_patch
        self.pad2square = pad2square
        self.hidden_size = llm_config.hidden_size
        require("ps_version", ps_version, ("v1", "v2"))
        require("pad2square", pad2square, (False, None))
        if not 1 <= min_dynamic_patch <= max_dynamic_patch:
            raise ValueError(
                f"min_dynamic_patch={min_dynamic_patch}, max_dynamic_patch={max_dynamic_patch}: at least 1, and the "
                "first at most the second"
            )
        merge = round(1 / downsample_ratio)
        if abs(merge * downsample_ratio - 1) > 1e-9:
            raise ValueError(f"downsample_ratio={downsample_ratio} is not supported; supported: 1 / n, as 0.5 or 0.25")
        require_divides("patches along a side of a tile", self.tile_sizes.grid, "1 / downsample_ratio", merge)
        layers = vision_config.num_hidden_layers
        if not -layers - 1 <= select_layer <= layers:
            raise ValueError(f"select_layer={select_layer} is not one of the {layers + 1} hidden states of the ViT")

    @property
    def tile_sizes(self) -> TileSizes:
        """Pixels, patches and visual tokens of a tile."""
        return tile_sizes({**vars(self), "vision_config": vars(self.vision_config)})

    @property
    def tile_side(self) -> int:
        """S: side of a tile, in pixels."""
        return self.tile_sizes.side

    @property
    def num_image_token(self) -> int:
        """N: visual tokens per tile."""
        return self.tile_sizes.tokens


class InternVLConfig(InternVLChatConfig):
    """A config.json in transformers' own spelling, read as the `InternVLChatConfig` that it describes."""

    model_type = "internvl"

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        return InternVLChatConfig.from_dict(paddle_config(config_dict), **kwargs)


def _without_model_type(fields: dict | None) -> dict:
    return {name: value for name, value in (fields or {}).items() if name != "model_type"}
