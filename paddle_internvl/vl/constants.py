"""The name that LMDeploy users import from `lmdeploy.vl.constants`: `IMAGE_TOKEN`, a picture's place in a prompt."""

from paddle_internvl.prompt.special_tokens import IMAGE_TOKEN

__all__ = ["IMAGE_TOKEN"]
