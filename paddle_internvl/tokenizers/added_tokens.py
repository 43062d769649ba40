"""A PaddleNLP tokenizer base that treats added tokens as transformers does.

In: text and the folder's own token files. Out: ids and text. Subclasses bring `_tokenize`,
`_convert_token_to_id`, `_convert_id_to_token` and `convert_tokens_to_string`.

PaddleNLP's own base strips white space beside special tokens, ignores the flags in `added_tokens_decoder`, appends
tokens that the vocabulary already has, and cleans up spaces on decoding whatever the config says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence

from paddlenlp.transformers import AddedToken, PretrainedTokenizer
from paddlenlp.transformers.tokenizer_utils import Trie


class AddedTokensTokenizer(PretrainedTokenizer):
    """Follows transformers' `PreTrainedTokenizer`: `_add_tokens`, `tokenize`, `_decode`.

    Thread-safe, except for adding tokens.
    """

    spaces_between_special_tokens = True  # `decode`'s default

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Load from a folder or hub id.

        Raises:
            FileNotFoundError: a folder without the vocabulary file. ValueError: a vocabulary file that can't be read.
        """
        for name in ("trust_remote_code", "use_fast", "_from_auto"):  # of AutoTokenizer; nothing here depends on them
            kwargs.pop(name, None)
        folder = str(pretrained_model_name_or_path)
        if os.path.isdir(folder):
            for name in cls.resource_files_names.values():
                if not os.path.isfile(os.path.join(folder, name)):
                    raise FileNotFoundError(f"{folder} has no {name}, which {cls.__name__} needs")
        tokenizer = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        tokenizer.verbose = False  # or PaddleNLP logs an error at each look at a token that the folder leaves null
        return tokenizer

    @classmethod
    def _from_pretrained(cls, resolved_vocab_files, pretrained_model_name_or_path, *args, **kwargs):
        loaded = super()._from_pretrained(resolved_vocab_files, pretrained_model_name_or_path, *args, **kwargs)
        if loaded is False:  # how PaddleNLP reports a vocabulary file that is broken
            names = ", ".join(cls.resource_files_names.values())
            raise ValueError(f"{pretrained_model_name_or_path}: {names} is not a readable vocabulary")
        return loaded

    def __len__(self) -> int:
        return len(self.get_vocab())

    def _add_tokens(self, new_tokens, special_tokens: bool = False) -> int:
        """Register tokens; one that the vocabulary has keeps its id. Returns how many ids are new."""
        vocabulary = self.get_vocab()
        next_id = max(vocabulary.values()) + 1
        first_id = next_id
        special = set(self.all_special_tokens)
        for token in new_tokens:
            content = str(token)
            if not content or content in self.added_tokens_encoder:
                continue
            if not isinstance(token, AddedToken):
                is_special = special_tokens or content in special
                token = AddedToken(content, lstrip=False, rstrip=False, normalized=not is_special, special=is_special)
            if content not in vocabulary:
                vocabulary[content] = next_id
                next_id += 1
            self.added_tokens_encoder[content] = vocabulary[content]
            self.added_tokens_decoder[vocabulary[content]] = token
        return next_id - first_id

    def _trie(self) -> tuple[Trie, dict[str, AddedToken]]:
        """A trie over the added tokens, and their flags by content; rebuilt when tokens were added."""
        count = len(self.added_tokens_decoder)
        cached = getattr(self, "_trie_cache", None)  # one attribute: another thread sees all of it or nothing
        if cached is None or cached[0] != count:
            flags = {str(token): token for token in self.added_tokens_decoder.values()}
            trie = Trie()
            for content in flags:
                trie.add(content)
            self._trie_cache = cached = (count, (trie, flags))
        return cached[1]

    def split_added_tokens(self, text: str, only: Collection[str] | None = None) -> list[tuple[str, bool]]:
        """Cut `text` at its added tokens: (part, whether it is an added token, of those in `only`), in order."""
        trie, flags = self._trie()
        tokens = flags if only is None else only
        return [(part, part in tokens) for part in trie.split(text) if part]

    def tokens_of(self, parts: Iterable[tuple[str, bool]]) -> list[str]:
        """Tokens of parts as `split_added_tokens` gives them. Neighbouring text is tokenized as one, and the added
        tokens' flags strip the white space beside them."""
        return [token for token, _ in self.tokens_by_part(list(parts))]

    def tokens_by_part(self, parts: Sequence[tuple[str, bool]]) -> list[tuple[str, int]]:
        """Tokens of parts, each with the index of its part. A token that spans two parts counts as the later one's."""
        _, flags = self._trie()
        runs: list[list[int]] = []  # an added token, or neighbouring parts of text
        for i, (_, is_token) in enumerate(parts):
            if runs and not is_token and not parts[runs[-1][0]][1]:
                runs[-1].append(i)
            else:
                runs.append([i])
        found: list[tuple[str, int]] = []
        for i, run in enumerate(runs):
            if parts[run[0]][1]:
                found.append((parts[run[0]][0], run[0]))
                continue
            texts = [parts[k][0] for k in run]
            if i > 0 and flags[parts[runs[i - 1][0]][0]].rstrip:
                texts = _stripped(texts, str.lstrip)
            if i + 1 < len(runs) and flags[parts[runs[i + 1][0]][0]].lstrip:
                texts = _stripped(texts[::-1], str.rstrip)[::-1]
            found += self._text_by_part(texts, run)
        return found

    def _text_by_part(self, texts: Sequence[str], run: Sequence[int]) -> list[tuple[str, int]]:
        whole = "".join(texts)
        tokens = self._tokenize(whole) if whole else []
        owners, length = [run[0]] * len(tokens), 0
        for text, part in zip(texts, run[1:]):
            length += len(text)
            before = self._tokenize(whole[:length]) if length else []
            first = next((k for k, (a, b) in enumerate(zip(tokens, before)) if a != b), min(len(tokens), len(before)))
            owners[first:] = [part] * (len(tokens) - first)
        return list(zip(tokens, owners))

    def tokenize(self, text: str, split_special_tokens: bool = False, **kwargs) -> list[str]:
        """Tokens of `text`. With split_special_tokens=True added tokens in it are ordinary text."""
        text, _ = self.prepare_for_tokenization(text, **kwargs)
        return self.tokens_of([(text, False)] if split_special_tokens else self.split_added_tokens(text))

    def _marks(self) -> tuple[set[str], set[int]]:
        """Tokens that stand apart from the pieces between them in decoded text, and ids of the special ones. Found anew
        only when tokens were added: an answer is decoded at every token."""
        tokens = tuple(self.all_special_tokens)
        state = (len(self.added_tokens_decoder), tokens)
        cached = getattr(self, "_marks_cache", None)
        if cached is None or cached[0] != state:
            # Added tokens stand apart, except those that the vocabulary itself contains.
            apart = (set(self.added_tokens_encoder) - set(tokens)) | {
                token for token in map(str, self.additional_special_tokens)
                if self.convert_tokens_to_ids(token) >= self.vocab_size
            }  # fmt: skip
            self._marks_cache = cached = (state, (apart, set(self.all_special_ids)))
        return cached[1]

    def convert_ids_to_tokens(self, ids, skip_special_tokens: bool = False):
        """The token of an id, or the tokens of several."""
        if isinstance(ids, int):
            return super().convert_ids_to_tokens(ids)
        special = self._marks()[1] if skip_special_tokens else ()
        return super().convert_ids_to_tokens([int(i) for i in ids if int(i) not in special])

    def decode(
        self,
        token_ids,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool | None = None,
        **kwargs,
    ) -> str:
        """Text of token ids (an int, a list, an array or a tensor); ids beyond the vocabulary, as padding rows of a
        model's embedding have, are no text."""
        ids = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
        ids = [ids] if isinstance(ids, int) else ids
        apart, _ = self._marks()
        texts: list[str] = []
        pieces: list[str] = []
        for token in self.convert_ids_to_tokens(ids, skip_special_tokens=skip_special_tokens):
            if token is None:
                continue
            if token not in apart:
                pieces.append(token)
                continue
            before = self.convert_tokens_to_string(pieces) if pieces else ""
            texts += [before, token] if before else [token]
            pieces = []
        if pieces:
            texts.append(self.convert_tokens_to_string(pieces))
        if spaces_between_special_tokens is None:
            spaces_between_special_tokens = type(self).spaces_between_special_tokens
        text = (" " if spaces_between_special_tokens else "").join(texts)
        clean = (
            self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        )
        return self.clean_up_tokenization(text) if clean else text

    def batch_decode(self, sequences, skip_special_tokens: bool = False, **kwargs) -> list[str]:
        """`decode` of each sequence."""
        return [self.decode(ids, skip_special_tokens=skip_special_tokens, **kwargs) for ids in sequences]


def _stripped(texts: Sequence[str], strip: Callable[[str], str]) -> list[str]:
    """Texts without the white space at the beginning of the first one, which may take up several of them."""
    out = list(texts)
    for i, text in enumerate(out):
        out[i] = strip(text)
        if out[i]:
            break
    return out
