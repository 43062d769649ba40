"""Streaming detokenization: token ids in, pieces of text out, whose sum is the whole answer.

A piece never ends inside a character or inside text that may become a stop string. White space around the text is left
out, as in a complete answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from paddle_internvl.prompt.stop_strings import cut_at_stop, partial_stop_length

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # decoded in place of a character whose bytes are incomplete
# (before, after) of transformers' `clean_up_tokenization`: text that may become a `before` is held back.
_CLEAN_UP = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
    (" n ' t", "n't"),  # two replacements in a row
    ("'.", " '."),  # of " ' .": " ' " is replaced as long as it is the end of the text, " ." afterwards
    ("'?", " '?"),
    ("'!", " '!"),
    ("',", " ',"),
)
_HELD_BACK = tuple(before for before, _ in _CLEAN_UP)
_WINDOW = 128  # ids that are decoded again at every new one; then the older half is settled
_MARGIN = 16  # characters behind a seam, farther than any clean-up reaches back
_CONTEXT = 4  # ids that end with a special token, decoded with those behind it: the first ids of a text are special


class IncrementalText:
    """Text of ids that come one by one, decoded incrementally: the cost of an id does not grow with their number.

    Only the latest ids are decoded again. Older ones are settled once the text of the latest ids alone is the end of
    the whole text, and long enough that no clean-up reaches back over the seam. A special token in the text changes the
    text since the last special token (SentencePiece's tokenizers write a blank in front of it), and no earlier one.

    Args:
        decode: ids -> text.
        special: ids of special tokens that `decode` writes.
        before: ids whose text is continued and no part of the text.
    """

    def __init__(self, decode: Callable[[list[int]], str], special: Collection[int] = (), before: Sequence[int] = ()):
        self._decode, self._special = decode, special
        self._before = ""  # text up to the last special token
        self._since = list(before[-_CONTEXT:])  # context that ends with the special token, and all ids behind it
        self._skip = len(decode(self._since)) if before else 0  # characters of the context
        self._settled = ""  # text of those before `_latest`
        self._latest = list(self._since)

    def push(self, token_id: int) -> None:
        """Append an id."""
        self._latest.append(token_id)
        self._since.append(token_id)
        if token_id in self._special:
            self._before += self._decode(self._since)[self._skip :]
            self._since = self._since[-_CONTEXT:]
            self._skip = len(self._decode(self._since))
            self._settled, self._latest = "", list(self._since)
        elif len(self._latest) % _WINDOW == 0:
            self._settle(self._latest[-_WINDOW // 2 :])

    def _settle(self, latest: list[int]) -> None:
        text, end = self._decode(self._latest), self._decode(latest)
        if len(end) > _MARGIN and text.endswith(end):
            self._settled += text[: -len(end)]
            self._latest = latest

    @property
    def text(self) -> str:
        """Text of all ids."""
        return self._before + (self._settled + self._decode(self._latest))[self._skip :]


class TextStream:
    """The text of one answer while it is generated.

    Args:
        decode: ids -> text.
        stops: strings that end the answer, which is cut before the first of them.
        kept: stop strings that stay in the answer.
        strip: remove white space around the text.
        special: see `IncrementalText`.
        before: see `IncrementalText`; white space behind it is kept.
    Attributes:
        stopped: whether a stop string was generated.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        stops: Sequence[str] = (),
        kept: Sequence[str] = (),
        strip: bool = True,
        special: Collection[int] = (),
        before: Sequence[int] = (),
    ):
        self._decoded, self._stops, self._kept = IncrementalText(decode, special, before), tuple(stops), tuple(kept)
        self._strip = str if not strip else str.rstrip if before else str.strip
        self._sent = ""
        self.stopped = False

    def push(self, token_id: int) -> str:
        """Append an id; returns the text that is final now, often ''."""
        self._decoded.push(token_id)
        text = self._decoded.text
        final = cut_at_stop(text, self._stops, self._kept)
        self.stopped = self.stopped or final is not None
        if final is None:
            final = text.rstrip(_REPLACEMENT)
            final = final[: len(final) - partial_stop_length(final, self._stops + _HELD_BACK)]
        return self._send(self._strip(final))

    def finish(self) -> str:
        """The rest of the text, after the last id."""
        return self._send(self.text)

    @property
    def text(self) -> str:
        """The whole answer, as if it ended here."""
        text = self._decoded.text
        final = cut_at_stop(text, self._stops, self._kept)
        return self._strip(text if final is None else final)

    def _send(self, text: str) -> str:
        if len(text) < len(self._sent):  # white space before a stop string, sent before, is stripped now
            return ""
        piece = text[len(self._sent) :]
        self._sent = text
        return piece
