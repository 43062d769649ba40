"""InternLM2's tokenizer: SentencePiece with byte fallback and a BOS in front.

In: tokenizer.model and tokenizer_config.json of a folder. Out: ids and text.
Follows upstream `tokenization_internlm2.py`, `InternLM2Tokenizer`.
"""

from __future__ import annotations

import sentencepiece

from paddle_internvl.tokenizers.sentencepiece import SentencePieceTokenizer


class InternLM2Tokenizer(SentencePieceTokenizer):
    """SentencePiece tokenizer of the InternLM2 backbones.

    Args:
        vocab_file: path of tokenizer.model. add_bos_token, add_eos_token: what encoding puts around the text.
        Others: as transformers.
    """

    def __init__(
        self,
        vocab_file,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        add_bos_token=True,
        add_eos_token=False,
        clean_up_tokenization_spaces=False,
        **kwargs,
    ):
        self.vocab_file = vocab_file
        self.add_bos_token = add_bos_token
        self.add_eos_token = add_eos_token
        self.sp_model = sentencepiece.SentencePieceProcessor()
        self.sp_model.Load(str(vocab_file))
        super().__init__(
            unk_token=unk_token,
            bos_token=bos_token,
            eos_token=eos_token,
            pad_token=pad_token,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            **kwargs,
        )

    @property
    def bos_token_id(self) -> int:
        return self.sp_model.bos_id()

    @property
    def eos_token_id(self) -> int:
        return self.sp_model.eos_id()

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Text of tokens. A run of special tokens gets one blank in front, as upstream writes it."""
        special = set(self.all_special_tokens)
        text, pieces, after_special = "", [], False
        for token in tokens:
            if token in special:
                text += ("" if after_special else " ") + self.sp_model.decode(pieces) + token
                pieces = []
            else:
                pieces.append(token)
            after_special = token in special
        return self.clean_up_tokenization(text + self.sp_model.decode(pieces))
