"""Random JSON Schemas, and answers drawn from token masks as a model with random weights would draw them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from paddle_internvl.generation.constraints.token_masks import TokenMasks

_NAMES = st.sampled_from(["a", "name", "価格", "b c", 'quo"te', "x1"])
_LEAVES = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"const": "é"}, {"enum": [1, "two", None, [3]]}]),
    st.builds(lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size},
              st.integers(-1000, 1000), st.integers(0, 2000)),
    st.builds(lambda k: {"type": "integer", "multipleOf": k, "minimum": 0, "maximum": 500},
              st.sampled_from([1, 2, 3, 5, 6, 7, 10, 12, 15, 20, 30])),  # large common multiples are refused
    st.builds(lambda low: {"type": "number", "minimum": low, "maximum": low + 10}, st.integers(-5, 5)),
    st.builds(lambda low, size: {"type": "string", "minLength": low, "maxLength": low + size},
              st.integers(0, 3), st.integers(0, 6)),
    st.sampled_from([{"type": "string", "pattern": "^[a-z]{2,5}$"}, {"type": "string", "format": "date"},
                     {"type": "string", "enum": ["red", "gréen", "ブルー", "\"\\"]}]),
)  # fmt: skip


def _objects(children):
    def schema(properties, required, closed):
        needed = [name for name in properties if name in required]
        return {"type": "object", "properties": properties, "required": needed, "additionalProperties": not closed}

    return st.builds(schema, st.dictionaries(_NAMES, children, max_size=4), st.sets(_NAMES), st.booleans())


def _arrays(children):
    return st.builds(
        lambda items, low, size: {"type": "array", "items": items, "minItems": low, "maxItems": low + size},
        children, st.integers(0, 2), st.integers(0, 2),
    )  # fmt: skip


SCHEMAS = st.recursive(
    _LEAVES,
    lambda children: st.one_of(
        _objects(children), _arrays(children), st.builds(lambda a, b: {"anyOf": [a, b]}, children, children)
    ),
    max_leaves=8,
)


def random_answer(masks: TokenMasks, tokens: list[bytes], ends: tuple[int, ...], seed: int, limit: int = 400):
    """Ids drawn by random logits, and whether the answer ended: closing characters are likelier, so that it does."""
    draw, ids = np.random.default_rng(seed), []
    likely = np.array([token.strip() in (b'"', b"}", b"]", b'"}', b",", b":") for token in tokens])
    while len(ids) < limit:
        allowed = masks.mask() == 0
        logits = np.where(allowed, draw.normal(0, 3, len(allowed)) + 6 * likely, -np.inf)
        ids.append(int(logits.argmax()) if not allowed[list(ends)].any() or draw.random() < 0.2 else ends[0])
        if ids[-1] in ends:
            return ids, True
        masks.advance(ids[-1])
    return ids, False
