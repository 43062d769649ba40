"""InternLM2's tokenizer: SentencePiece with byte fallback and a BOS in front.

In: tokenizer.model and tokenizer_config.json of a folder. Out: ids and text.
Follows upstream `tokenization_internlm2.py`, `InternLM2Tokenizer`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import sentencepiece

from paddle_internvl.tokenizers.added_tokens import AddedTokensTokenizer


class InternLM2Tokenizer(AddedTokensTokenizer):
    """SentencePiece tokenizer of the InternLM2 backbones.

    Args:
        vocab_file: path of tokenizer.model. add_bos_token, add_eos_token: what encoding puts around the text.
        Others: as transformers.
    """

    resource_files_names = {"vocab_file": "tokenizer.model"}
    pretrained_resource_files_map: dict = {}
    pretrained_init_configuration: dict = {}
    model_input_names = ["input_ids", "attention_mask"]

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
    def vocab_size(self) -> int:
        """Pieces of the SentencePiece model, added tokens not counted."""
        return self.sp_model.get_piece_size()

    @property
    def bos_token_id(self) -> int:
        return self.sp_model.bos_id()

    @property
    def eos_token_id(self) -> int:
        return self.sp_model.eos_id()

    def get_vocab(self) -> dict[str, int]:
        """Every token and its id; an added token on a piece's id takes the piece's place."""
        if not hasattr(self, "_pieces"):
            self._pieces = [self.sp_model.IdToPiece(i) for i in range(self.vocab_size)]
        vocabulary = {piece: i for i, piece in enumerate(self._pieces) if i not in self.added_tokens_decoder}
        return {**vocabulary, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **kwargs) -> list[str]:
        return self.sp_model.encode(text, out_type=str)

    def _convert_token_to_id(self, token: str) -> int:
        return self.sp_model.piece_to_id(token)

    def _convert_id_to_token(self, index: int) -> str:
        return self.sp_model.IdToPiece(index)

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

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None) -> list[int]:
        bos = [self.bos_token_id] if self.add_bos_token else []
        eos = [self.eos_token_id] if self.add_eos_token else []
        return bos + token_ids_0 + (token_ids_1 or []) + eos

    def save_resources(self, save_directory) -> None:
        """Write tokenizer.model into a folder."""
        target = Path(save_directory) / self.resource_files_names["vocab_file"]
        if target.resolve() != Path(self.vocab_file).resolve():
            shutil.copyfile(self.vocab_file, target)
