"""Token masks of one answer: which tokens may come next, computed in a thread while the model runs.

In: the grammar of the answer and its tokens, one by one. Out: bool masks.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future, wait

import numpy as np

from paddle_internvl.generation.constraints.compiler import ConstraintError, Grammar, allowed_tokens

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
        size = len(grammar.first)
        self._ends, self._never = ([i for i in ids if i < size] for ids in (ends, never))
        if not self._ends:
            raise ConstraintError("response_format needs a token that ends the answer; give eos_token_id")
        self._grammar, self._matcher = grammar, grammar.matcher.deep_copy()
        self._next: Future | np.ndarray = self._mask(grammar.first.copy())

    def advance(self, token: int) -> None:
        """Begin to compute the mask behind a token that the last mask allows."""
        self._next = self._grammar.executor.submit(self._advance, token)

    def is_ready(self) -> bool:
        """Whether the mask is computed; waits for the thread for a moment."""
        return not isinstance(self._next, Future) or not wait([self._next], _SECONDS).not_done

    def allowed(self) -> np.ndarray:
        """bool [V]: the tokens that may come next; waits for the thread.

        Raises:
            ConstraintError: there is none, or the grammar has become too complex.
        """
        if isinstance(self._next, Future):
            self._next = self._next.result()
        if not self._next.any():
            raise ConstraintError("response_format: no token that the model has continues the answer")
        return self._next

    def _advance(self, token: int) -> np.ndarray:
        if not self._matcher.consume_token(self._grammar.vocabulary.original.get(token, token)):
            message = " ".join(self._matcher.get_error().replace("<non-verbose/>", "").split())
            raise ConstraintError(f"response_format: the answer can't be continued: {message[:300]}")
        if self._matcher.is_stopped() and self._matcher.is_accepting():
            return self._mask(np.zeros(len(self._grammar.first), bool))
        return self._mask(allowed_tokens(self._matcher, self._grammar.vocabulary))

    def _mask(self, mask: np.ndarray) -> np.ndarray:
        """The mask with the end tokens of this answer in the place of the grammar's."""
        mask[self._grammar.vocabulary.end] = False
        mask[self._ends] = self._matcher.is_accepting()
        mask[self._never] = False
        return mask
