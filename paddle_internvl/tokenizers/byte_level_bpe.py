"""Byte-level BPE: Qwen2's from vocab.json and merges.txt, Llama-3's from a tokenizer.json.

In: those files and tokenizer_config.json of a folder. Out: ids and text. The `tokenizers` library merges; this module
splits text into words and maps bytes to letters and back.
"""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import regex
from tokenizers import Tokenizer
from tokenizers.models import BPE

from paddle_internvl.tokenizers.added_tokens import AddedToken, AddedTokensTokenizer

# Source: transformers `tokenization_qwen2.py`, PRETOKENIZE_REGEX.
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _letters_of_bytes() -> list[str]:
    """A visible letter for every byte: itself where Latin-1 has a visible one, else the next free code from 256 on
    (GPT-2's table)."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    free = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(free)) for byte in range(256)]


_LETTERS = _letters_of_bytes()
_BYTES = {letter: byte for byte, letter in enumerate(_LETTERS)}


def bytes_of_token(token: str) -> bytes:
    """The bytes of a token's letters; letters that stand for no byte are text themselves."""
    return b"".join(bytes([_BYTES[c]]) if c in _BYTES else c.encode() for c in token)


class ByteLevelBPETokenizer(AddedTokensTokenizer):
    """Base of both kinds of byte-level BPE. Subclasses set `encoder` (token -> id) before this class is initialised."""

    pretrained_resource_files_map: dict = {}
    pretrained_init_configuration: dict = {}
    model_input_names = ["input_ids", "attention_mask"]
    spaces_between_special_tokens = False

    @property
    def vocab_size(self) -> int:
        """Tokens of the vocabulary file, added ones not counted."""
        return len(self.encoder)

    def get_vocab(self) -> dict[str, int]:
        """Every token and its id."""
        return {**self.encoder, **self.added_tokens_encoder}

    def bytes_of_ids(self) -> dict[int, bytes]:
        """Bytes of every token of text: of all but the added ones."""
        added = self.added_tokens_decoder
        return {i: bytes_of_token(token) for token, i in self.encoder.items() if i not in added}

    def _convert_token_to_id(self, token: str) -> int | None:
        # Not `unk_token`: where it is None, PaddleNLP's property logs an error at every call.
        return self.encoder.get(token, self.encoder.get(str(self._unk_token)))

    def _convert_id_to_token(self, index: int) -> str | None:
        if not hasattr(self, "_decoder"):
            self._decoder = {i: token for token, i in self.encoder.items()}
        return self._decoder.get(index)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Text of tokens; bytes that are no UTF-8 become U+FFFD. Letters that stand for no byte are text themselves."""
        raw = b"".join(bytes_of_token(token) for token in tokens if token is not None)
        return raw.decode("utf-8", errors="replace")

    def save_resources(self, save_directory) -> None:
        """Write the vocabulary files into a folder."""
        for name in self.resource_files_names.values():
            source, target = self.folder / name, Path(save_directory) / name
            if target.resolve() != source.resolve():
                shutil.copyfile(source, target)


class Qwen2Tokenizer(ByteLevelBPETokenizer):
    """Tokenizer of the Qwen2 and Qwen2.5 backbones. Adds no BOS.

    Args:
        vocab_file: path of vocab.json.
        merges_file: path of merges.txt.
        kwargs: as in transformers.
    """

    resource_files_names = {"vocab_file": "vocab.json", "merges_file": "merges.txt"}

    def __init__(
        self,
        vocab_file,
        merges_file,
        unk_token="<|endoftext|>",
        bos_token=None,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        **kwargs,
    ):
        self.folder = Path(vocab_file).parent
        self.encoder = json.loads(Path(vocab_file).read_text(encoding="utf-8"))
        self._bpe = BPE(self.encoder, _merges(Path(merges_file)), cache_capacity=1 << 16)
        self._words = regex.compile(QWEN2_WORDS)
        super().__init__(
            unk_token=unk_token,
            bos_token=bos_token,
            eos_token=eos_token,
            pad_token=pad_token,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            **kwargs,
        )

    def prepare_for_tokenization(self, text, **kwargs):
        return unicodedata.normalize("NFC", text), kwargs

    def _tokenize(self, text: str, **kwargs) -> list[str]:
        tokens: list[str] = []
        for word in self._words.findall(unicodedata.normalize("NFC", text)):
            letters = "".join(_LETTERS[byte] for byte in word.encode("utf-8"))
            tokens += [token.value for token in self._bpe.tokenize(letters)]
        return tokens


def _merges(file: Path) -> list[tuple[str, str]]:
    """Merges of a merges.txt, highest priority first."""
    lines = file.read_text(encoding="utf-8").split("\n")
    if lines[0].startswith("#version"):
        lines = lines[1:]
    return [tuple(line.split()) for line in lines if line.strip()]


class TokenizerJson(ByteLevelBPETokenizer):
    """Tokenizer of a tokenizer.json alone, as Llama-3's (`PreTrainedTokenizerFast`).

    Args:
        tokenizer_file: path of tokenizer.json.
        kwargs: as in transformers.
    Raises:
        ValueError: its model is not byte-level BPE.
    """

    resource_files_names = {"tokenizer_file": "tokenizer.json"}

    def __init__(self, tokenizer_file, clean_up_tokenization_spaces=False, added_tokens_decoder=None, **kwargs):
        self.folder = Path(tokenizer_file).parent
        content = json.loads(Path(tokenizer_file).read_text(encoding="utf-8"))
        if content["model"].get("type") != "BPE" or (content.get("decoder") or {}).get("type") != "ByteLevel":
            raise ValueError(f"{tokenizer_file}: only byte-level BPE is supported, not {content['model'].get('type')}")
        self._pipeline = Tokenizer.from_file(str(tokenizer_file))
        self.encoder = content["model"]["vocab"]
        listed = {row.pop("id"): AddedToken(**row) for row in content.get("added_tokens", [])}
        super().__init__(
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            added_tokens_decoder=added_tokens_decoder or listed,
            **kwargs,
        )
        self._add_tokens(listed.values())

    def _tokenize(self, text: str, **kwargs) -> list[str]:
        if self._pipeline.normalizer is not None:
            text = self._pipeline.normalizer.normalize_str(text)
        words = self._pipeline.pre_tokenizer.pre_tokenize_str(text)
        return [token.value for word, _ in words for token in self._pipeline.model.tokenize(word)]

    def convert_ids_to_tokens(self, ids, skip_special_tokens: bool = False):
        """Tokens of ids; every added token that the file marks as special can be skipped, named or not."""
        if skip_special_tokens and not isinstance(ids, int):
            added = self.added_tokens_decoder
            ids = [i for i in ids if not (i in added and added[i].special)]
        return super().convert_ids_to_tokens(ids)

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Write the files under the class name that transformers knows."""
        written = super().save_pretrained(save_directory, *args, **kwargs)
        file = Path(save_directory) / self.tokenizer_config_file
        config = json.loads(file.read_text(encoding="utf-8"))
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        file.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
        return written

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None) -> list[int]:
        """Ids with the special tokens of the file's post-processor (Llama-3: BOS in front)."""
        if not hasattr(self, "_around"):
            plain = self._pipeline.encode("a", add_special_tokens=False).ids
            whole = self._pipeline.encode("a", add_special_tokens=True).ids
            start = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
            self._around = whole[:start], whole[start + len(plain) :]
        before, after = self._around
        return before + token_ids_0 + (token_ids_1 or []) + after
