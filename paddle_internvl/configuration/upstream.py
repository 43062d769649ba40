"""What every config does: reads and writes upstream's spelling, and refuses what is not supported."""

from __future__ import annotations

from paddlenlp.transformers import PretrainedConfig


class UpstreamConfig(PretrainedConfig):
    """A config whose file transformers can read too."""

    def to_diff_dict(self, saving_file: bool = False) -> dict:
        """What differs from the defaults, nested configs likewise, in upstream's spelling (`torch_dtype`)."""
        fields = super().to_diff_dict(saving_file=saving_file)
        for name, value in vars(self).items():
            if isinstance(value, UpstreamConfig):
                fields[name] = value.to_diff_dict(saving_file=saving_file)
        fields.pop("dtype", None)
        fields["torch_dtype"] = str(self.dtype).removeprefix("paddle.")
        fields.pop("paddlenlp_version", None)
        return fields


def require(name: str, value, supported: tuple) -> None:
    """A ValueError that names field and choices, unless the value is one of them."""
    if value not in supported:
        raise ValueError(f"{name}={value!r} is not supported; supported: {', '.join(map(repr, supported))}")


def require_divides(part: str, name: str, value: int, divisor_name: str, divisor: int) -> None:
    """A ValueError that names both fields, unless the value is a multiple of the divisor."""
    if value % divisor:
        raise ValueError(f"{part}.{name}={value} is not a multiple of {divisor_name}={divisor}")
