"""The names that LMDeploy users import from `lmdeploy.vl`: `load_image`, which gives a PIL image, and `IMAGE_TOKEN`.

(`paddle_internvl.load_image` is the model cards' function of that name, which gives pixel tiles.)
"""

from paddle_internvl.media.images import open_image as load_image
from paddle_internvl.prompt.special_tokens import IMAGE_TOKEN

__all__ = ["IMAGE_TOKEN", "load_image"]
