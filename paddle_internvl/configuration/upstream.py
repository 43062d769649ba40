"""The base of every config class: upstream's spelling, validated overrides, and refusal of unsupported values."""

from __future__ import annotations

from paddlenlp.transformers import PretrainedConfig

from convert.config_spelling import upstream_spelling


class UpstreamConfig(PretrainedConfig):
    """A config whose file transformers can read too."""

    @classmethod
    def from_dict(cls, config_dict: dict, return_unused_kwargs: bool = False, **kwargs):
        """A config from the dict of a config.json.

        Args:
            config_dict: the file's content.
            return_unused_kwargs: also return the arguments that are no fields.
            kwargs: overrides of fields; names that are no fields are left alone.
        Raises:
            ValueError: a value that is not supported.
        """
        config = super().from_dict(upstream_spelling(config_dict))
        fields = {name: kwargs.pop(name) for name in list(kwargs) if name in vars(config)}
        config = config.with_overrides(**fields) if fields else config
        return (config, kwargs) if return_unused_kwargs else config

    def with_overrides(self, **fields):
        """A copy of the config with other values in some fields, validated as a config.json with them would be.

        Args:
            fields: new values by the name of the field.
        Raises:
            ValueError: an unknown field, or a value that is not supported.
        """
        unknown = sorted(fields.keys() - vars(self).keys())
        if unknown:
            raise ValueError(f"{unknown[0]!r} is neither an argument nor a field of {type(self).__name__}")
        return type(self).from_dict({**self.to_dict(), **fields})

    def to_diff_dict(self, saving_file: bool = False) -> dict:
        """The fields that differ from the defaults, nested configs likewise, in upstream's spelling (`torch_dtype`)."""
        fields = super().to_diff_dict(saving_file=saving_file)
        for name, value in vars(self).items():
            if isinstance(value, UpstreamConfig):
                fields[name] = value.to_diff_dict(saving_file=saving_file)
        fields.pop("dtype", None)
        fields["torch_dtype"] = None if self.dtype is None else str(self.dtype).removeprefix("paddle.")
        fields.pop("paddlenlp_version", None)
        return fields


def require(name: str, value, supported: tuple) -> None:
    """A ValueError that names field and choices, unless the value is one of them."""
    if value not in supported:
        raise ValueError(f"{name}={value!r} is not supported; supported: {', '.join(map(repr, supported))}")


def require_divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """A ValueError that names both fields, unless the value is a multiple of the divisor."""
    if value % divisor:
        raise ValueError(f"{name}={value} is not a multiple of {divisor_name}={divisor}")
