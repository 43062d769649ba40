"""What stands before a question about pictures or a clip: upstream's numbering. Text only."""

from paddle_internvl.prompt.special_tokens import IMAGE_PLACEHOLDER


def picture_prefix(count: int, before: int = 0) -> str:
    """`<image>` marks for `count` pictures; numbered when there are several, or `before` earlier ones."""
    if count == 1 and before == 0:
        return f"{IMAGE_PLACEHOLDER}\n"
    return "".join(f"Image-{before + i + 1}: {IMAGE_PLACEHOLDER}\n" for i in range(count))


def frame_prefix(count: int) -> str:
    """`<image>` marks for the frames of a clip, numbered from 1."""
    return "".join(f"Frame{i + 1}: {IMAGE_PLACEHOLDER}\n" for i in range(count))
