"""ReadError: a fault of a benchmark's file."""


class ReadError(ValueError):
    """A file of a benchmark that can't be read; the message names the file and the row."""
