"""Sampling at the extremes of every parameter, against NumPy in float64: the same token, or the same refusal."""

import contextlib

import numpy as np
import paddle
import pytest
from hypothesis import assume, example, given, reject, settings
from hypothesis import strategies as st

from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.sampling import Sampler

V, STEPS, END = 12, 4, 3
HUGE = 10**30
DENORMAL = 5e-324
EXTREMES = {
    "temperature": [0, DENORMAL, 1e-310, 1e-45, 5e-38, 1e-30, 1e-6, 0.3, 1.0, 50.0, 1e9, 1e30],
    "top_k": [-1, 0, 1, 2, V - 1, V, V + 1, HUGE],
    "top_p": [0.0, DENORMAL, 1e-9, 0.3, 0.9, 1.0],
    "min_p": [0.0, DENORMAL, 1e-9, 0.3, 1.0],
    "repetition_penalty": [1e-6, 0.5, 1.0, 1.3, 1e6],
    "no_repeat_ngram_size": [0, 1, 2, 3, HUGE],
    "seed": [0, 1, 2**32, 2**64 - 1, HUGE],
    "min_new_tokens": [0, 1, STEPS, 100],
    "bad_token_ids": [(), (0,), (5, 6, 10**9)],
}
ORDINARY = {"do_sample": True, "eos_token_id": (END, V, 10**9), "seed": 0, "top_k": 0}


class UndecidedError(Exception):
    """Two numbers are so close that float32 may order them otherwise."""


def require_apart(values, bound: float) -> None:
    if np.abs(values - bound).min(initial=1) < 1e-5:
        raise UndecidedError


def probabilities(logits, generated, c):
    """The distribution of the next token, float64 [V], by the definition of each parameter."""
    scores = logits.copy()
    for token in set(generated):
        scores[token] *= c.repetition_penalty if scores[token] < 0 else 1 / c.repetition_penalty
    size = c.no_repeat_ngram_size
    banned = set(c.bad_token_ids) | set(c.eos_token_id if len(generated) < c.min_new_tokens else ())
    if size and len(generated) >= size:
        starts = range(len(generated) - size + 1)
        last = generated[len(generated) - size + 1 :]
        banned |= {generated[i + size - 1] for i in starts if generated[i : i + size - 1] == last}
    scores[[token for token in banned if token < V]] = -np.inf
    if not c.samples:
        return np.eye(V)[scores.argmax()]
    with np.errstate(over="ignore"):
        p = softmax((scores - scores.max()) / c.temperature)
    if 0 < c.top_k < V:
        p = normalised(np.where(scores >= np.sort(scores)[-c.top_k], p, 0))
    order = np.argsort(-scores, kind="stable")
    before = np.empty(V)
    before[order] = np.cumsum(p[order]) - p[order]
    if c.top_p < 1:
        require_apart(before[(p > 0) & (before > 0)], c.top_p)
        p = normalised(np.where((before < c.top_p) | (scores == scores.max()), p, 0))
    if c.min_p > 0:
        require_apart((p / p.max())[(p > 1e-5) & (p < p.max())], c.min_p)
        p = normalised(np.where(p >= c.min_p * p.max(), p, 0))
    return p


def softmax(x):
    return normalised(np.exp(x - x.max()))


def normalised(p):
    return p / p.sum()


def check(logits, **settings):
    config = GenerationConfig(**{**ORDINARY, "max_new_tokens": 100, **settings})
    sampler, draws, generated = Sampler(config, 1), np.random.default_rng(config.seed), []
    for _ in range(STEPS):
        p = probabilities(logits.astype(np.float64), generated, config)
        token = int(sampler(paddle.to_tensor(logits[None])).wait().ids[0])
        if config.samples:
            bounds, draw = np.cumsum(p), draws.random()
            require_apart(bounds, draw)
            assert token == np.searchsorted(bounds, draw, side="right")
        else:
            assert token == p.argmax()
        generated.append(token)


def distinct_logits(seed: int, scale: float) -> np.ndarray:
    return (np.random.default_rng(seed).permutation(np.linspace(-1, 1.1, V)) * scale).astype(np.float32)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in EXTREMES.items() for value in values])
def test_one_parameter_at_its_extremes(name, value):
    for seed in range(5):
        with contextlib.suppress(UndecidedError):
            check(distinct_logits(seed, 4.0), **{name: value})


@settings(max_examples=300, deadline=None)
@given(
    logits=st.builds(distinct_logits, st.integers(0, 99), st.sampled_from([1e-3, 1.0, 30.0, 1e30])),
    values=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in EXTREMES.items()}),
)
@example(distinct_logits(0, 30.0), {"temperature": 5e-38, "top_p": 0.9, "min_p": 0.3})
@example(distinct_logits(0, 1e30), {"temperature": 1e-45, "bad_token_ids": (0,)})
@example(distinct_logits(0, 1.0), {"temperature": 1e30, "bad_token_ids": (0, 1), "top_k": 3})
def test_parameters_at_their_extremes_together(logits, values):
    assume(values.get("repetition_penalty", 1.0) == 1.0 or abs(logits).max() < 1e30)  # the product leaves float32
    try:
        check(logits, **values)
    except UndecidedError:
        reject()


@pytest.mark.parametrize("temperature", [DENORMAL, 1e-300, 1e-45, 5e-38, 1e-30])
def test_a_tiny_temperature_is_greedy(temperature):
    logits = distinct_logits(1, 20.0)
    sampler = Sampler(GenerationConfig(do_sample=True, temperature=temperature, top_k=0, seed=0), 1)
    assert {int(sampler(paddle.to_tensor(logits[None])).wait().ids[0]) for _ in range(20)} == {int(logits.argmax())}


def test_a_huge_temperature_draws_every_allowed_token():
    config = GenerationConfig(do_sample=True, temperature=1e30, top_k=0, seed=0, bad_token_ids=(0, 1))
    sampler, logits = Sampler(config, 1), paddle.to_tensor(distinct_logits(1, 20.0)[None])
    assert {int(sampler(logits).wait().ids[0]) for _ in range(300)} == set(range(2, V))


def test_more_likeliest_tokens_than_the_vocabulary_has():
    sampler = Sampler(GenerationConfig(log_probs=True, top_logprobs=20), 1)
    (top,) = sampler(paddle.to_tensor(distinct_logits(0, 1.0)[None])).wait().top
    assert sorted(top) == list(range(V))
