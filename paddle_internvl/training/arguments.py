"""Data arguments of training, by upstream's names."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

SAMPLING_METHODS = ("rand", "middle")
LOSS_REDUCTIONS = {"token": 0.0, "sample": -1.0, "square": -0.5}  # power of a sample's learnt tokens: weight of a token


@dataclass(frozen=True)
class DataArguments:
    """How annotation items become samples.

    Attributes:
        conv_style: name of the conversation template.
        max_seq_length: most tokens of a sample.
        dynamic_image_size: whether pictures are cut into tiles.
        use_thumbnail: whether a picture of several tiles gets a thumbnail tile.
        min_dynamic_patch: fewest tiles of a picture.
        max_dynamic_patch: most tiles of a picture, shared by the pictures of a sample.
        group_by_length: False pads every sample to max_seq_length, as upstream does.
        min_num_frame: fewest frames of a clip.
        max_num_frame: most frames of a clip.
        sampling_method: 'rand' or 'middle', the frame of each interval of a clip.
        truncation: True cuts samples at max_seq_length; False: a longer sample is an error.
        seed: of all random choices.
    """

    conv_style: str
    max_seq_length: int = 8192
    dynamic_image_size: bool = True
    use_thumbnail: bool = True
    min_dynamic_patch: int = 1
    max_dynamic_patch: int = 12
    group_by_length: bool = True
    min_num_frame: int = 8
    max_num_frame: int = 32
    sampling_method: str = "rand"
    truncation: bool = False
    seed: int = 42

    def __post_init__(self):
        if self.sampling_method not in SAMPLING_METHODS:
            raise ValueError(f"sampling_method={self.sampling_method!r}; supported: {', '.join(SAMPLING_METHODS)}")
        for low, high in (("min_dynamic_patch", "max_dynamic_patch"), ("min_num_frame", "max_num_frame")):
            least, limit = getattr(self, low), getattr(self, high)
            if not 1 <= least <= limit:
                raise ValueError(f"{low}={least}, {high}={limit}: at least 1, and the first at most the second")
        if self.max_seq_length < 1:
            raise ValueError(f"max_seq_length={self.max_seq_length} must be above 0")

    @classmethod
    def from_config(cls, config, **arguments) -> DataArguments:
        """The arguments of a call, and the checkpoint's config for the others.

        Args:
            config: an `InternVLChatConfig`.
            arguments: fields of this class; None: the config's or the default.
        Raises:
            ValueError: an unknown argument, or a value out of range.
        """
        names = {field.name for field in fields(cls)}
        unknown = sorted(arguments.keys() - names)
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no data argument; arguments: {', '.join(sorted(names))}")
        shared = ("dynamic_image_size", "use_thumbnail", "min_dynamic_patch", "max_dynamic_patch")
        defaults = cls(config.template, **{name: getattr(config, name) for name in shared})
        return replace(defaults, **{name: value for name, value in arguments.items() if value is not None})


@dataclass(frozen=True)
class PackingArguments:
    """How samples are packed, see `PackedDataset`.

    Attributes:
        use_packed_ds: pack samples.
        max_packed_tokens: maximum tokens of a pack.
        num_images_expected: maximum tiles of a pack; the dummy tile of a text sample counts.
        max_buffer_size: maximum number of unfinished packs that wait for more samples.
        allow_overflow: let a sample go beyond `max_packed_tokens` and split the pack there.
        strict_mode: pad every pack to `max_packed_tokens` tokens and `num_images_expected` tiles.
        replacement: start a data set again that runs dry, instead of leaving it out for the rest of the epoch.
        loss_reduction: 'token', 'sample' or 'square', the weight of a token in the loss.
        loss_reduction_all_gather: divide the loss of a pack by the mean sum of weights of all ranks' packs.
    """

    use_packed_ds: bool = False
    max_packed_tokens: int = 8192
    num_images_expected: int = 40
    max_buffer_size: int = 20
    allow_overflow: bool = False
    strict_mode: bool = False
    replacement: bool = False
    loss_reduction: str = "token"
    loss_reduction_all_gather: bool = False

    def __post_init__(self):
        if self.loss_reduction not in LOSS_REDUCTIONS:
            raise ValueError(f"loss_reduction={self.loss_reduction!r}; supported: {', '.join(LOSS_REDUCTIONS)}")
        for name in ("max_packed_tokens", "num_images_expected", "max_buffer_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
