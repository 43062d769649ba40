"""Llama's SentencePiece tokenizer, as Yi-34B and Phi-3 use it: a blank in front of the text, two ways to put it there.

In: tokenizer.model and tokenizer_config.json of a folder. Out: ids and text.
Follows transformers' slow `LlamaTokenizer`. With `legacy` every stretch of text between added tokens gets the blank
that SentencePiece puts in front; without, only the whole text does, and blanks after added tokens are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from paddle_internvl.tokenizers.sentencepiece import SentencePieceTokenizer

_BLANK = "\u2581"  # how SentencePiece writes a blank


class LlamaTokenizer(SentencePieceTokenizer):
    """SentencePiece tokenizer of the Llama family.

    Args:
        vocab_file: path of tokenizer.model. add_bos_token, add_eos_token: what encoding puts around the text.
        legacy: see above; None is True, as in transformers. add_prefix_space: without legacy, whether the text gets
        its blank. Others: as transformers.
    """

    def __init__(
        self,
        vocab_file,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token=None,
        add_bos_token=True,
        add_eos_token=False,
        legacy=None,
        add_prefix_space=True,
        clean_up_tokenization_spaces=False,
        **kwargs,
    ):
        self.vocab_file = vocab_file
        self.add_bos_token = add_bos_token
        self.add_eos_token = add_eos_token
        self.legacy = legacy is None or legacy
        self.add_prefix_space = add_prefix_space
        self.sp_model = sentencepiece.SentencePieceProcessor()
        content = Path(vocab_file).read_bytes()
        if not self.legacy:
            proto = sentencepiece_model_pb2.ModelProto.FromString(content)
            proto.normalizer_spec.add_dummy_prefix = False
            content = proto.SerializeToString()
        self.sp_model.LoadFromSerializedProto(content)
        super().__init__(
            unk_token=unk_token,
            bos_token=bos_token,
            eos_token=eos_token,
            pad_token=pad_token,
            legacy=self.legacy,
            add_prefix_space=add_prefix_space,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            **kwargs,
        )

    def tokens_by_part(self, parts: Sequence[tuple[str, bool]]) -> list[tuple[str, int]]:
        if self.legacy or not any(text for text, _ in parts):
            return super().tokens_by_part(parts)
        parts = [(text if is_token else text.replace(_BLANK, " "), is_token) for text, is_token in parts]
        if not self.add_prefix_space:
            return super().tokens_by_part(parts)
        found = [(token, max(part - 1, 0)) for token, part in super().tokens_by_part([(_BLANK, False), *parts])]
        if len(found) > 1 and found[0][0] == _BLANK and found[1][0] in self.all_special_tokens:
            return found[1:]
        return found

    def _tokenize(self, text: str, **kwargs) -> list[str]:
        if self.legacy or not text.startswith((_BLANK, " ")):
            return super()._tokenize(text)
        # SentencePiece drops a leading blank unless something stands before it; that something is cut off again.
        before = str(self.unk_token)
        return super()._tokenize(before + text)[len(super()._tokenize(before)) :]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Text of tokens, without the blank that encoding had put in front."""
        return self._text_with_blanks(tokens, before=" " if self.legacy else "", after=" ")

    def _second(self, token_ids: list[int], bos: list[int], eos: list[int]) -> list[int]:
        return eos + bos + token_ids
