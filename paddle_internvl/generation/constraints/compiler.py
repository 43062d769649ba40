"""Compilation of response formats to token matchers, by llguidance.

In: a `ResponseFormat`. Out: a `Grammar`, from which every answer gets a matcher. llguidance
(https://github.com/guidance-ai/llguidance) is an optional dependency, imported at the first format.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np

from paddle_internvl.generation.constraints.formats import ResponseFormat
from paddle_internvl.generation.constraints.vocabulary import Vocabulary

_SHOWN = 300  # characters of an error
_MAX_GRAMMARS = 64  # compiled ones that are kept
# White space between the values of JSON as people and models write it: blanks, or line ends and an indentation. Without
# a bound a model that was not trained on JSON writes blanks up to its limit.
_WHITE_SPACE = r"\x20{1,2}|(\r?\n){1,2}[\x20\t]{0,48}"
_MAX_ITEMS = 20_000  # of a parser's step, about a millisecond: an ambiguous grammar must not halt other requests
SCHEMA_OPTIONS = {
    "whitespace_pattern": _WHITE_SPACE,
    "whitespace_flexible": True,
    "lenient": False,
    "coerce_one_of": False,
}
# Prescribed text, such as the keys of a schema, comes in the tokens that the model prefers: they are not forced.
_WHOLE = '%llguidance {"no_forcing": true}\nstart: @body'
_BLANK_FIRST = '%llguidance {"no_forcing": true}\nstart: " "? @body'
# Every byte of a bit mask -> 8 entries of a mask: many times faster than a choice for each token.
_ENTRIES = np.array([[0 if byte >> bit & 1 else -np.inf for bit in range(8)] for byte in range(256)], np.float32)
_MISSING = '{feature} needs llguidance: pip install "paddle_internvl[structured]"'


class ConstraintError(ValueError):
    """A response format that can't be compiled, or that an answer can't be continued by."""


@dataclass(frozen=True)
class Grammar:
    """A compiled response format.

    Attributes:
        vocabulary: of the tokenizer.
        drops_blank: whether a blank at the beginning of the answer is no part of its text.
        matcher: llguidance's, at the beginning of an answer; to be copied.
        first: mask of the tokens that an answer may begin with, see `token_mask`.
        executor: threads that compute masks.
    """

    vocabulary: Vocabulary
    drops_blank: bool
    matcher: object
    first: np.ndarray
    executor: ThreadPoolExecutor


class GrammarCompiler:
    """Compiles response formats for one tokenizer, and keeps the latest. Thread-safe.

    Args:
        tokenizer: one of `paddle_internvl.tokenizers`.
        size: V, number of logits.
    Raises:
        ImportError: llguidance is not installed.
    """

    def __init__(self, tokenizer, size: int):
        llguidance = require_llguidance()
        self.vocabulary = Vocabulary(tokenizer, size)
        table = _TokenTable(self.vocabulary)
        self._tokens = table.tokenizer = llguidance.LLTokenizer(table, n_vocab=size)
        self._limits = llguidance.LLParserLimits(step_max_items=_MAX_ITEMS, verbose_errors=False)
        self._grammars: OrderedDict[tuple[ResponseFormat, bool], Grammar] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def _executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(2, "token-masks")

    def compile(self, response_format: ResponseFormat, begins: bool = True) -> Grammar:
        """The grammar of a response format.

        Args:
            response_format: the format.
            begins: whether answers begin a text, not continue one.
        Raises:
            ConstraintError: the format has an error or a feature that is not supported; names it.
        """
        key = response_format, begins
        with self._lock:
            if key in self._grammars:
                self._grammars.move_to_end(key)
                return self._grammars[key]
        grammar = self._compile(response_format, begins)
        with self._lock:
            self._grammars[key] = grammar
            while len(self._grammars) > _MAX_GRAMMARS:
                self._grammars.popitem(last=False)
        return grammar

    def _compile(self, response_format: ResponseFormat, begins: bool) -> Grammar:
        body = {**_definition(response_format), "name": "body"}
        matcher, first = self._matcher(response_format, {"grammars": [{"lark_grammar": _WHOLE}, body]})
        blanks = [i for i, token in enumerate(self.vocabulary.tokens) if token[:1] == b" "]
        drops_blank = self.vocabulary.drops_blank and begins and not (first[blanks] == 0).any()
        if drops_blank:  # the answer may begin with a token whose blank the tokenizer leaves out
            parts = [{"lark_grammar": _BLANK_FIRST}, body]
            matcher, first = self._matcher(response_format, {"grammars": parts})
        return Grammar(self.vocabulary, drops_blank, matcher, first, self._executor)

    def _matcher(self, response_format: ResponseFormat, definition: dict):
        """A matcher of llguidance, and the mask of the tokens that it begins with."""
        matcher = require_llguidance().LLMatcher(self._tokens, json.dumps(definition), log_level=0, limits=self._limits)
        first = token_mask(matcher, self.vocabulary) if not matcher.is_error() else None
        if matcher.is_error():
            raise ConstraintError(f"response_format: the {response_format.kind} is not supported: {error_of(matcher)}")
        return matcher, first


def token_mask(matcher, vocabulary: Vocabulary) -> np.ndarray:
    """float32 [V]: 0 for the tokens that a matcher of llguidance can go on with, else minus infinity."""
    from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

    bits = allocate_token_bitmask(1, len(vocabulary.tokens))
    fill_next_token_bitmask(matcher, bits)  # unlike `compute_bitmask`, without Python's lock: the model runs meanwhile
    mask = np.take(_ENTRIES, bits.view(np.uint8)[0], axis=0).reshape(-1)[: len(vocabulary.tokens)]
    mask[list(vocabulary.original)] = mask[list(vocabulary.original.values())]
    return mask


def error_of(matcher) -> str:
    """The error of a matcher of llguidance, in one line."""
    return " ".join(matcher.get_error().replace("<non-verbose/>", "").split())[:_SHOWN]


_compilers: WeakKeyDictionary = WeakKeyDictionary()  # tokenizer -> (its tokens, V, compiler)
_compilers_lock = threading.Lock()


def compiler_of(tokenizer, size: int) -> GrammarCompiler:
    """The compiler of a tokenizer, made at the first call: that takes a second with 151 thousand tokens.

    Args:
        tokenizer: one of `paddle_internvl.tokenizers`.
        size: V, number of logits.
    Raises:
        ImportError: llguidance is not installed.
    """
    with _compilers_lock:
        made = _compilers.get(tokenizer)
        if made is None or made[:2] != (len(tokenizer), size):
            made = _compilers[tokenizer] = (len(tokenizer), size, GrammarCompiler(tokenizer, size))
        return made[2]


def is_installed() -> bool:
    """Whether llguidance is installed."""
    from importlib.util import find_spec

    return find_spec("llguidance") is not None


def require_llguidance(feature: str = "response_format"):
    """The module llguidance.

    Args:
        feature: that needs it.
    Raises:
        ImportError: it is not installed.
    """
    try:
        import llguidance
    except ImportError as error:
        raise ImportError(_MISSING.format(feature=feature)) from error
    return llguidance


def _definition(response_format: ResponseFormat) -> dict:
    """llguidance's definition of a format."""
    kind, source = response_format.kind, response_format.source
    if kind == "json_schema":
        schema = json.loads(source)
        if not isinstance(schema, dict):  # true: any JSON
            schema = {} if schema else {"enum": []}
        return {"json_schema": {**schema, "x-guidance": SCHEMA_OPTIONS}}
    if kind == "choice":
        return {"lark_grammar": f"start: {' | '.join(map(json.dumps, json.loads(source)))}"}
    if kind == "regex":
        return json.loads(require_llguidance().LLMatcher.grammar_from_regex(source))["grammars"][0]
    if kind == "grammar" and "::=" in source:
        from llguidance.gbnf_to_lark import any_to_lark

        source = any_to_lark(source)
    return {"lark_grammar": source}


class _TokenTable:
    """A vocabulary as llguidance reads it."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary):
        self.tokens = list(vocabulary.tokens)
        for copy in vocabulary.original:  # a matcher allows one id of each text
            self.tokens[copy] = b""
        self.eos_token_id, self.special_token_ids = vocabulary.end, sorted(vocabulary.special)

    def __call__(self, text: str) -> list[int]:
        return self.tokenizer.greedy_tokenize(text)
