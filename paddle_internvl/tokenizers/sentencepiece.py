"""What the SentencePiece tokenizers share: the vocabulary of a tokenizer.model and its way to disk.

In: tokenizer.model. Out: pieces and ids. Subclasses say what stands around a text and how pieces become text again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from paddle_internvl.tokenizers.added_tokens import AddedTokensTokenizer

_BLANK = "\u2581"  # how SentencePiece writes a blank


class SentencePieceTokenizer(AddedTokensTokenizer):
    """Subclasses set `vocab_file`, `sp_model`, `add_bos_token` and `add_eos_token` before this class is initialised.

    Each lists all its arguments in an `__init__` of its own: PaddleNLP writes those of the class itself, with their
    defaults, to tokenizer_config.json.
    """

    resource_files_names = {"vocab_file": "tokenizer.model"}
    pretrained_resource_files_map: dict = {}
    pretrained_init_configuration: dict = {}
    model_input_names = ["input_ids", "attention_mask"]

    @property
    def vocab_size(self) -> int:
        """Pieces of the SentencePiece model, added tokens not counted."""
        return self.sp_model.get_piece_size()

    def get_vocab(self) -> dict[str, int]:
        """Every token and its id; an added token on a piece's id takes the piece's place."""
        if not hasattr(self, "_pieces"):
            self._pieces = [self.sp_model.IdToPiece(i) for i in range(self.vocab_size)]
        vocabulary = {piece: i for i, piece in enumerate(self._pieces) if i not in self.added_tokens_decoder}
        return {**vocabulary, **self.added_tokens_encoder}

    def bytes_of_ids(self) -> dict[int, bytes]:
        """Bytes of every token of text: of all but added, control and unknown tokens. Byte tokens are one byte each."""
        model, found = self.sp_model, {}
        for i in range(self.vocab_size):
            piece = model.IdToPiece(i)
            if model.IsByte(i):
                found[i] = bytes([int(piece.removeprefix("<0x").removesuffix(">"), 16)])
            elif i not in self.added_tokens_decoder and not (
                model.IsControl(i) or model.IsUnknown(i) or model.IsUnused(i)
            ):
                found[i] = piece.replace(_BLANK, " ").encode()
        return found

    def _text_with_blanks(self, tokens: list[str], before: str, after: str) -> str:
        """Text of tokens of Llama's kind, without the blank that encoding had put in front if `add_prefix_space`.

        Args:
            tokens: the tokens.
            before: in front of special tokens that follow text.
            after: behind a special token at the beginning.
        """
        special = set(self.all_special_tokens)
        tokens = list(tokens)
        if tokens and self.add_prefix_space:
            tokens[0] = tokens[0].removeprefix(_BLANK)
        text, pieces, after_special = "", [], False
        for i, token in enumerate(tokens):
            if token in special:
                text += ("" if after_special or i == 0 else before) + self.sp_model.decode(pieces) + token
                pieces = []
            else:
                if after_special and i == 1 and self.add_prefix_space and not token.startswith(_BLANK):
                    text += after
                pieces.append(token)
            after_special = token in special
        return text + self.sp_model.decode(pieces)

    def _tokenize(self, text: str, **kwargs) -> list[str]:
        return self.sp_model.encode(text, out_type=str)

    def _convert_token_to_id(self, token: str) -> int:
        return self.sp_model.piece_to_id(token)

    def _convert_id_to_token(self, index: int) -> str | None:
        return self.sp_model.IdToPiece(index) if 0 <= index < self.vocab_size else None

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None) -> list[int]:
        bos = [self.bos_token_id] if self.add_bos_token else []
        eos = [self.eos_token_id] if self.add_eos_token else []
        second = [] if token_ids_1 is None else self._second(token_ids_1, bos, eos)
        return bos + token_ids_0 + second + eos

    def _second(self, token_ids: list[int], bos: list[int], eos: list[int]) -> list[int]:
        """What stands between the first text and the last EOS when there are two texts."""
        return token_ids

    def save_resources(self, save_directory) -> None:
        """Write tokenizer.model into a folder."""
        target = Path(save_directory) / self.resource_files_names["vocab_file"]
        if target.resolve() != Path(self.vocab_file).resolve():
            shutil.copyfile(self.vocab_file, target)
