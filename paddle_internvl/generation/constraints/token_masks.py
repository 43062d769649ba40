"""Token masks of one answer: which tokens may come next, computed in a thread while the model runs.

In: the grammar of the answer and its tokens, one by one. Out: bool masks.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future, wait

import numpy as np

from paddle_internvl.generation.constraints.compiler import ConstraintError, Grammar, error_of, token_mask

_SMALL = 1 << 13  # tokens; the mask of fewer takes less time than handing it to a thread
_SECONDS = 0.02  # more than a mask takes, unless the grammar is ambiguous; other answers are not kept waiting


class TokenMasks:
    """The masks of one answer. One thread uses it.

    Args:
        grammar: what the answer has to match.
        ends: ids that end the answer; allowed where the grammar is complete, and only there.
        never: ids that are not allowed.
    Raises:
        ConstraintError: no end token.
    """

    def __init__(self, grammar: Grammar, ends: Collection[int], never: Collection[int] = ()):
        self._vocabulary, self._executor = grammar.vocabulary, grammar.executor
        self._matcher = grammar.matcher.deep_copy()
        size = len(grammar.first)
        self._ends, self._never = ([i for i in ids if i < size] for ids in (ends, never))
        if not self._ends:
            raise ConstraintError("response_format needs a token that ends the answer; give eos_token_id")
        self._next: Future | np.ndarray | None = self._mask(grammar.first.copy())

    def advance(self, token: int) -> None:
        """Begin to compute the mask behind a token that the last mask allows; of a small vocabulary, compute it."""
        if len(self._vocabulary.tokens) > _SMALL:
            self._next = self._executor.submit(self._advance, token)
            return
        self._next = Future()
        try:
            self._next.set_result(self._advance(token))
        except ConstraintError as error:  # raised by `mask`, as if it came from a thread
            self._next.set_exception(error)

    def is_ready(self) -> bool:
        """Whether the mask is computed; waits for the thread for a moment."""
        return not isinstance(self._next, Future) or not wait([self._next], _SECONDS).not_done

    def mask(self) -> np.ndarray:
        """float32 [V], added to logits: 0 for tokens that may come next, else minus infinity; waits for the thread.

        Raises:
            ConstraintError: no token may come next, or the grammar has become too complex.
        """
        if isinstance(self._next, Future):
            self._next = self._next.result()
        if self._next is None:
            raise ConstraintError("response_format: no token that the model has continues the answer")
        return self._next

    def _advance(self, token: int) -> np.ndarray | None:
        if not self._matcher.consume_token(self._vocabulary.original.get(token, token)):
            raise ConstraintError(f"response_format: the answer can't be continued: {error_of(self._matcher)}")
        if self._matcher.is_stopped() and self._matcher.is_accepting():
            return self._mask(np.full(len(self._vocabulary.tokens), -np.inf, np.float32))
        return self._mask(token_mask(self._matcher, self._vocabulary))

    def _mask(self, mask: np.ndarray) -> np.ndarray | None:
        """A mask of the grammar's, with this answer's end tokens in the place of the grammar's; None: no token."""
        mask[self._vocabulary.end] = -np.inf
        mask[self._ends] = 0 if self._matcher.is_accepting() else -np.inf
        mask[self._never] = -np.inf
        return mask if mask.max() == 0 else None
