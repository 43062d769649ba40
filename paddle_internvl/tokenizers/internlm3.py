"""InternLM3's tokenizer, of InternVL3-9B: SentencePiece with a BOS in front; blanks beside special tokens by choice.

In: tokenizer.model and tokenizer_config.json of a folder. Out: ids and text.
Follows the checkpoint's own `tokenization_internlm3.py`, `InternLM3Tokenizer`.
"""

from __future__ import annotations

import sentencepiece

from paddle_internvl.tokenizers.sentencepiece import SentencePieceTokenizer


class InternLM3Tokenizer(SentencePieceTokenizer):
    """SentencePiece tokenizer of InternLM3.

    Args:
        vocab_file: path of tokenizer.model. add_bos_token, add_eos_token: what encoding puts around the text.
        add_prefix_space: whether decoding cuts off the blank in front of the text.
        spaces_for_interleaved_special_tokens: whether decoding puts blanks between text and special tokens.
        Others: as transformers.
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
        add_prefix_space=True,
        spaces_for_interleaved_special_tokens=False,
        clean_up_tokenization_spaces=False,
        **kwargs,
    ):
        self.vocab_file = vocab_file
        self.add_bos_token = add_bos_token
        self.add_eos_token = add_eos_token
        self.add_prefix_space = add_prefix_space
        self.spaces_for_interleaved_special_tokens = spaces_for_interleaved_special_tokens
        self.sp_model = sentencepiece.SentencePieceProcessor()
        self.sp_model.Load(str(vocab_file))
        super().__init__(
            unk_token=unk_token,
            bos_token=bos_token,
            eos_token=eos_token,
            pad_token=pad_token,
            add_prefix_space=add_prefix_space,
            spaces_for_interleaved_special_tokens=spaces_for_interleaved_special_tokens,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            **kwargs,
        )

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Text of tokens."""
        blank = " " if self.spaces_for_interleaved_special_tokens else ""
        return self._text_with_blanks(tokens, before=blank, after=blank)

    def _second(self, token_ids: list[int], bos: list[int], eos: list[int]) -> list[int]:
        return eos + bos + token_ids
