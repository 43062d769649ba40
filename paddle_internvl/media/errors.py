"""`MediaError`: a picture or clip of untrusted input that is not taken, with the HTTP status that a server answers."""

from __future__ import annotations

EXIT_NO_SPACE = 28  # exit status of `clip_worker` where its output file can't grow
_CODES = {
    400: "invalid_media",
    413: "media_too_large",
    422: "media_unreachable",
    429: "media_busy",
    507: "storage_full",
}


class MediaError(ValueError):
    """A picture or clip that is broken, unreachable, not allowed or above a limit.

    Args:
        message: for the client; holds no path, no address and no text of a fetched host.
        status: HTTP status. 400: broken or not allowed, 413: too large, 422: can't be fetched, 429: the media of all
            requests are too large together, 507: the server has no room for temporary files.
    Attributes:
        code: name of the error for programs.
    """

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status, self.code = status, _CODES[status]

    def at(self, place: str) -> MediaError:
        """The same error with its place in the request in front."""
        return MediaError(f"{place}: {self}", self.status)
