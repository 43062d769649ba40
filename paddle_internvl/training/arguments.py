"""Arguments of training data, packing and preference losses, by upstream's names."""

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
        Returns:
            The arguments, checked.
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


MPO = {"sigmoid": 0.8, "bco_pair": 0.2}  # weights of the losses; that of generation is 1
PREFERENCE_TYPES = ("sigmoid", "robust", "hinge", "ipo")
LOSS_TYPES = (*PREFERENCE_TYPES, "bco_pair", "sft")


@dataclass(frozen=True)
class PreferenceArguments:
    """Losses of preference optimisation, see `preference_loss`.

    Without `loss_type` they are MPO's: 0.8 sigmoid + 0.2 bco_pair + 1.0 generation. With it, a weight that is not given
    is 1, and there is no generation loss without `rpo_alpha` (upstream's and TRL's defaults).

    Attributes:
        loss_type: names separated by commas: one of sigmoid (DPO), robust, hinge, ipo; bco_pair; sft.
        beta: strength of the pull to the reference model.
        label_smoothing: probability that chosen and rejected are swapped, for sigmoid and robust; below 0.5.
        reference_free: leave the reference model out.
        sigmoid_loss_weight: weight of the sigmoid loss.
        robust_loss_weight: weight of the robust loss.
        hinge_loss_weight: weight of the hinge loss.
        ipo_loss_weight: weight of the ipo loss.
        bco_pair_loss_weight: weight of the bco_pair loss.
        rpo_alpha: weight of the generation loss; in loss_type `sft` without it is 1.
        reference_log_probs: file of the reference model's log-probabilities, made before the first step where it lacks
            pairs, by the policy as it is then; None: a frozen copy of the policy is the reference model.
    """

    loss_type: str | None = None
    beta: float = 0.1
    label_smoothing: float = 0.0
    reference_free: bool = False
    sigmoid_loss_weight: float | None = None
    robust_loss_weight: float | None = None
    hinge_loss_weight: float | None = None
    ipo_loss_weight: float | None = None
    bco_pair_loss_weight: float | None = None
    rpo_alpha: float | None = None
    reference_log_probs: str | None = None

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each loss."""
        names = [*MPO, "sft"] if self.loss_type is None else self.loss_type.split(",")
        names += ["sft"] if self.rpo_alpha is not None and "sft" not in names else []
        defaults = MPO if self.loss_type is None else {}
        values = {name: getattr(self, f"{name}_loss_weight") for name in LOSS_TYPES if name != "sft"}
        values["sft"] = self.rpo_alpha
        return {name: defaults.get(name, 1.0) if values[name] is None else values[name] for name in names}

    def __post_init__(self):
        names = [] if self.loss_type is None else self.loss_type.split(",")
        unknown = [name for name in names if name not in LOSS_TYPES]
        if unknown or len(set(names)) < len(names):
            raise ValueError(f"loss_type={self.loss_type!r}; supported, separated by commas: {', '.join(LOSS_TYPES)}")
        preferences = [name for name in self.weights if name in PREFERENCE_TYPES]
        if len(preferences) > 1:
            raise ValueError(f"loss_type={self.loss_type!r}: give one of {', '.join(preferences)}")
        for name in LOSS_TYPES[:-1]:
            if getattr(self, f"{name}_loss_weight") is not None and name not in self.weights:
                raise ValueError(
                    f"{name}_loss_weight has no effect with loss_type={self.loss_type!r}; add {name} to it"
                )
        if not self.beta > 0:
            raise ValueError(f"beta={self.beta} must be above 0")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing={self.label_smoothing} is not in [0, 0.5)")
        if self.label_smoothing and not {"sigmoid", "robust"} & self.weights.keys():
            raise ValueError(f"label_smoothing has no effect with loss_type={self.loss_type!r}; use sigmoid or robust")
        if self.reference_free and "bco_pair" in self.weights:
            raise ValueError("reference_free: bco_pair needs a reference model; give loss_type sigmoid, hinge or ipo")
