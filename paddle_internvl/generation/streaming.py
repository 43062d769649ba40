"""Text of an answer while it grows: token ids in, pieces of text out, whose sum is the whole answer.

In: a decode function and ids. Out: text. A piece never ends inside a character or inside what may become a stop
string, and leading and trailing white space is left out, as it is of a finished answer. Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from paddle_internvl.generation.stopping import cut, held_back

_BROKEN = "\N{REPLACEMENT CHARACTER}"  # what decoding shows in place of a character whose bytes are not all there
# What tokenizers' clean-up joins to the word before it (transformers `clean_up_tokenization`): not to be sent while it
# may still become that. The last of the first row is two of its replacements in a row; the second row is what a blank
# behind an apostrophe turns out to belong to, when it was first joined as " ' ".
_JOINED = (
    " .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're", " n ' t",
    "'.", "'?", "'!", "',",
)  # fmt: skip
_WINDOW = 128  # ids that are decoded again at every new one; then the older half is settled
_APART = 16  # characters behind a seam from which on nothing reaches back over it


class GrowingText:
    """The text of ids that come one by one, at a cost for each that does not grow with how many there are.

    Only the latest ids are decoded again. Older ones are settled once the later ones by themselves decode to what they
    are at the end of the whole, and so far that no clean-up reaches back.

    Args:
        decode: ids -> text. local: whether an id changes no text but the last few characters before it. Kinds that
            write special tokens with a blank before the whole run of text in front of them are not.
    """

    def __init__(self, decode: Callable[[list[int]], str], local: bool = True):
        self._decode, self._local = decode, local
        self._settled = ""
        self._ids: list[int] = []

    def push(self, token_id: int) -> None:
        """Take one id."""
        self._ids.append(token_id)
        if self._local and len(self._ids) % _WINDOW == 0:
            self._settle(self._ids[-_WINDOW // 2 :])

    def _settle(self, later: list[int]) -> None:
        text, rest = self._decode(self._ids), self._decode(later)
        if len(rest) > _APART and text.endswith(rest):
            self._settled += text[: -len(rest)]
            self._ids = later

    @property
    def text(self) -> str:
        """What all ids decode to."""
        return self._settled + self._decode(self._ids)


class TextStream:
    """One answer in the making.

    Args:
        decode: ids -> text. stops: strings that end the answer; it is cut before the first of them, or behind it if
            that is one of `kept`. strip: leave out white space around the text. local: see `GrowingText`.
    Attributes:
        stopped: whether a stop string has been met.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        stops: Sequence[str] = (),
        kept: Sequence[str] = (),
        strip: bool = True,
        local: bool = True,
    ):
        self._decoded, self._stops, self._kept = GrowingText(decode, local), tuple(stops), tuple(kept)
        self._trim = str.strip if strip else str
        self._sent = ""
        self.stopped = False

    def push(self, token_id: int) -> str:
        """Take one id; returns the text that is now certain, often ''."""
        self._decoded.push(token_id)
        text = self._decoded.text
        whole = cut(text, self._stops, self._kept)
        self.stopped = self.stopped or whole is not None
        if whole is None:
            whole = text.rstrip(_BROKEN)
            whole = whole[: len(whole) - held_back(whole, self._stops + _JOINED)]
        return self._send(self._trim(whole))

    def finish(self) -> str:
        """The rest, once no more ids come."""
        return self._send(self.text)

    @property
    def text(self) -> str:
        """The whole answer so far, as if it ended here."""
        text = self._decoded.text
        whole = cut(text, self._stops, self._kept)
        return self._trim(text if whole is None else whole)

    def _send(self, text: str) -> str:
        if len(text) < len(self._sent):  # what was held back before a stop string turned out to be white space
            return ""
        piece = text[len(self._sent) :]
        self._sent = text
        return piece
