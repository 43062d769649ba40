"""What a client is told about a picture or clip that is not taken."""

_CODES = {400: "invalid_media", 413: "media_too_large", 422: "media_unreachable"}


class MediaError(ValueError):
    """A medium of a request that can't be had, is broken, or is more than the server takes.

    Args:
        message: for the client; names no path, no address and nothing a fetched host has said. status: HTTP status:
            400 broken or not allowed, 413 too large, 422 can't be fetched.
    Attributes:
        code: the error's name for programs.
    """

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status, self.code = status, _CODES[status]

    def at(self, where: str) -> "MediaError":
        """The same error, with the place in the request in front."""
        return MediaError(f"{where}: {self}", self.status)
