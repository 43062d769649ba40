"""Filters and penalties by hand and against transformers; draws against their distribution."""

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.sampling import Sampler, _draw, _filter


def kept(probabilities, **settings):
    """Mask of the tokens that the filters keep."""
    logits = paddle.to_tensor(np.log(np.array([probabilities], np.float32)))
    return _filter(logits, GenerationConfig(**settings))[0].isfinite().tolist()


def test_filters_by_hand():
    p = [0.05, 0.5, 0.15, 0.3]
    assert kept(p, top_k=2) == [False, True, False, True]
    assert kept(p, top_k=0, top_p=0.79) == [False, True, False, True]
    assert kept(p, top_k=0, top_p=0.81) == [False, True, True, True]
    assert kept(p, top_k=0, top_p=0.0) == [False, True, False, False]
    assert kept(p, top_k=0, min_p=0.29) == [False, True, True, True]
    # top-p acts on what top-k leaves, renormalised: 0.5 / 0.8 is more than 0.6
    assert kept(p, top_k=2, top_p=0.6) == [False, True, False, False]
    assert kept(p, top_k=99) == [True] * 4


@pytest.mark.torch
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), k=st.integers(0, 40), p=st.floats(0.01, 1), low=st.floats(0, 0.5),
    temperature=st.floats(0.2, 3),
)  # fmt: skip
def test_filters_as_transformers(seed, k, p, low, temperature):
    import torch
    from transformers.generation import logits_process as theirs

    logits = np.random.default_rng(seed).normal(0, 2, (3, 40)).astype(np.float32)
    expected = torch.from_numpy(logits) / temperature
    for name, value, off in (("TopK", k, 0), ("TopP", p, 1.0), ("MinP", low, 0.0)):
        if value != off:
            expected = getattr(theirs, f"{name}LogitsWarper")(value)(None, expected)
    ours = _filter(paddle.to_tensor(logits) / temperature, GenerationConfig(top_k=k, top_p=p, min_p=low)).numpy()
    np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(expected.numpy()))


@pytest.mark.torch
@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.integers(0, 7), min_size=1, max_size=20), penalty=st.floats(0.3, 3), size=st.integers(0, 4),
    least=st.integers(0, 25),
)  # fmt: skip
def test_penalties_as_transformers(ids, penalty, size, least):
    import torch
    from transformers.generation import logits_process as theirs

    logits = np.random.default_rng(len(ids)).normal(0, 2, (1, 8)).astype(np.float32)
    expected, before = torch.from_numpy(logits), torch.tensor([ids])
    expected = theirs.RepetitionPenaltyLogitsProcessor(penalty)(before, expected)
    if size:
        expected = theirs.NoRepeatNGramLogitsProcessor(size)(before, expected)
    expected = theirs.MinNewTokensLengthLogitsProcessor(0, least, [3, 4])(before, expected)
    config = GenerationConfig(
        repetition_penalty=penalty, no_repeat_ngram_size=size, min_new_tokens=least, eos_token_id=(3, 4)
    )
    ours = Sampler(config, 1).adjust(paddle.to_tensor(logits), paddle.to_tensor([ids])).numpy()
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-6)


def test_penalties_by_hand():
    logits = paddle.to_tensor([[2.0, -2.0, 1.0, 0.5]])
    config = GenerationConfig(repetition_penalty=2.0, min_new_tokens=3, eos_token_id=(2,))
    out = Sampler(config, 1).adjust(logits, paddle.to_tensor([[0, 1]]))[0].tolist()
    assert out == [1.0, -4.0, float("-inf"), 0.5]
    assert logits.tolist() == [[2.0, -2.0, 1.0, 0.5]]  # the input is unchanged


def penalised(logits: np.ndarray, generated: list[list[int]], c: GenerationConfig) -> np.ndarray:
    """`adjust` in NumPy, row by row and id by id."""
    change = logits.copy()
    for row, ids in enumerate(generated):
        seen = np.unique(np.array(ids, np.int64))
        for token, bias in c.logit_bias:
            change[row, token] += np.float32(bias)
        score = change[row, seen]
        penalty = np.float32(c.repetition_penalty)
        change[row, seen] = np.where(score < 0, score * penalty, score / penalty)
        counts = np.array([ids.count(token) for token in seen], np.float32)
        change[row, seen] -= counts * np.float32(c.frequency_penalty)
        change[row, seen] -= np.float32(c.presence_penalty)
        size, never = c.no_repeat_ngram_size, set(c.bad_token_ids)
        if size:
            tail = ids[len(ids) - size + 1 :] if len(ids) + 1 >= size else None
            never |= {ids[i + size - 1] for i in range(len(ids) - size + 1) if ids[i : i + size - 1] == tail}
        if len(ids) < c.min_new_tokens:
            never |= set(c.eos_token_id)
        change[row, sorted(never)] = -np.inf
    return change


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(), rows=st.integers(1, 3), length=st.integers(0, 14), penalty=st.sampled_from([1.0, 0.7, 1.1, 2.5]),
    size=st.integers(0, 4), least=st.integers(0, 20), bad=st.sets(st.integers(0, 7), max_size=3),
    frequency=st.sampled_from([0.0, -1.5, 0.3]), presence=st.sampled_from([0.0, 0.7]),
    bias=st.dictionaries(st.integers(0, 7), st.floats(-100, 100), max_size=3),
)  # fmt: skip
def test_penalties_equal_numpy_ones_bit_for_bit(
    data, rows, length, penalty, size, least, bad, frequency, presence, bias
):
    row = st.lists(st.integers(0, 7), min_size=length, max_size=length)
    ids = data.draw(st.lists(row, min_size=rows, max_size=rows))
    logits = np.random.default_rng(rows + length).normal(0, 4, (rows, 8)).astype(np.float32)
    config = GenerationConfig(
        repetition_penalty=penalty, no_repeat_ngram_size=size, min_new_tokens=least, eos_token_id=(3, 4),
        bad_token_ids=tuple(bad), frequency_penalty=frequency, presence_penalty=presence, logit_bias=bias,
    )  # fmt: skip
    generated = paddle.to_tensor(ids) if length else None
    ours = Sampler(config, rows).adjust(paddle.to_tensor(logits), generated).numpy()
    np.testing.assert_array_equal(ours, penalised(logits, ids, config))


def test_penalties_apply_to_sampled_tokens():
    logits = paddle.to_tensor([[3.0, 2.9, 2.0, 1.0]])
    sampler = Sampler(GenerationConfig(no_repeat_ngram_size=1), 1)
    assert [int(sampler(logits).wait().ids[0]) for _ in range(4)] == [0, 1, 2, 3]
    sampler = Sampler(GenerationConfig(min_new_tokens=2, eos_token_id=(0,)), 1)
    assert [int(sampler(logits).wait().ids[0]) for _ in range(3)] == [1, 1, 0]


def test_draws_follow_the_distribution():
    p = np.array([[0.0, 0.1, 0.0, 0.6, 0.3, 0.0]], np.float32)
    uniform = np.linspace(0, 1, 20000, endpoint=False)
    ids = _draw(paddle.to_tensor(p).expand([20000, 6]), paddle.to_tensor(uniform)).numpy()
    np.testing.assert_allclose(np.bincount(ids, minlength=6) / 20000, p[0], atol=2e-4)


def test_draws_never_leave_the_vocabulary():
    p = paddle.to_tensor(np.array([[0.3, 0.7, 0.0], [0.2, 0.8, 0.0]], np.float32))
    assert _draw(p, paddle.to_tensor(np.array([0.0, np.nextafter(1, 0)]))).tolist() == [0, 1]


def test_same_seed_same_tokens_whatever_the_batch():
    logits = paddle.to_tensor(np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32))
    config = GenerationConfig(do_sample=True, seed=7)
    batch, alone = Sampler(config, 3), Sampler(config, 1)
    for _ in range(10):
        assert batch(logits).wait().ids[2] == alone(logits[2:]).wait().ids[0]


def test_fresh_seeds_differ():
    logits, config = paddle.zeros([1, 1000]), GenerationConfig(do_sample=True, top_k=0)
    draws = {tuple(int(Sampler(config, 1)(logits).wait().ids[0]) for _ in range(3)) for _ in range(5)}
    assert len(draws) > 1


def test_log_probs_are_of_the_unchanged_logits():
    logits = np.random.default_rng(0).normal(size=(2, 9)).astype(np.float32)
    config = GenerationConfig(log_probs=True, do_sample=True, temperature=0.3, top_k=2, seed=1)
    chosen = Sampler(config, 2)(paddle.to_tensor(logits)).wait()
    ids, log_probs = chosen.ids, chosen.log_probs
    by_hand = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(log_probs, by_hand[[0, 1], ids], rtol=1e-5)
