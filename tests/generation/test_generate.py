"""The decoding loop: with a KV cache as without, batches as single prompts, limits, end tokens, log-probabilities."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from paddle_internvl.generation.config import GenerationConfig
from paddle_internvl.generation.generate import FINISHED, generate_ids, generate_steps
from paddle_internvl.ops import transfers

PROMPT = 12


@pytest.fixture(autouse=True, params=[False, True], ids=["step by step", "a step ahead"])
def ahead(request, monkeypatch):
    """Whether a step's tokens are read while the next one runs, as on a card."""
    monkeypatch.setattr(transfers, "overlaps", lambda: request.param)
    return request.param


@pytest.fixture
def embeds(decoder):
    ids = paddle.to_tensor(np.random.default_rng(3).integers(3, 1000, (1, PROMPT)))
    return decoder.get_input_embeddings()(ids)


def generate(decoder, embeds, mask=None, **settings):
    return generate_ids(decoder, embeds, mask, GenerationConfig(**settings), 2)[0]


def test_greedy_is_the_argmax_loop_without_a_cache(decoder, embeds):
    expected, so_far = [], embeds
    for _ in range(10):
        expected.append(int(decoder(inputs_embeds=so_far)[0, -1].argmax()))
        step = decoder.get_input_embeddings()(paddle.to_tensor([[expected[-1]]]))
        so_far = paddle.concat([so_far, step], axis=1)
    assert generate(decoder, embeds, max_new_tokens=10)[0].tolist() == expected


def test_log_probs_are_those_of_a_forward_over_the_answer(decoder, embeds):
    config = GenerationConfig(max_new_tokens=8, do_sample=True, seed=5, log_probs=True)
    ids, log_probs = generate_ids(decoder, embeds, None, config, 2)
    tail = decoder.get_input_embeddings()(paddle.to_tensor(ids[:, :-1]))
    logits = decoder(inputs_embeds=paddle.concat([embeds, tail], axis=1))[:, PROMPT - 1 :]
    again = F.log_softmax(logits, axis=-1).take_along_axis(paddle.to_tensor(ids).unsqueeze(-1), -1).squeeze(-1)
    np.testing.assert_allclose(log_probs, again.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "seed": 3, "temperature": 1.5}])
def test_left_padded_batch_equals_singles(decoder, sampling):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 1000, length) for length in (2, 20, 7)]
    ids, mask = np.full((3, 20), 2), np.zeros((3, 20), np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, 20 - len(prompt) :], mask[row, 20 - len(prompt) :] = prompt, 1
    table = decoder.get_input_embeddings()
    batch = generate(decoder, table(paddle.to_tensor(ids)), paddle.to_tensor(mask), max_new_tokens=12, **sampling)
    for row, prompt in enumerate(prompts):
        alone = generate(decoder, table(paddle.to_tensor(prompt[None])), max_new_tokens=12, **sampling)
        assert batch[row].tolist() == alone[0].tolist()


def test_ends(decoder, embeds):
    free = generate(decoder, embeds, max_new_tokens=10)[0].tolist()
    end = free[4]
    stopped = generate(decoder, embeds, max_new_tokens=10, eos_token_id=(999, end))[0].tolist()
    assert stopped == free[: free.index(end) + 1]
    longer = generate(decoder, embeds, max_new_tokens=10, min_new_tokens=8, eos_token_id=(end,))[0].tolist()
    assert end not in longer[:7] and len(longer) >= 8


def test_rows_end_independently_and_are_padded(decoder):
    ids = paddle.to_tensor(np.random.default_rng(1).integers(3, 1000, (2, 6)))
    embeds = decoder.get_input_embeddings()(ids)
    free = generate(decoder, embeds, max_new_tokens=8)
    end = next(int(token) for token in free[0] if token not in free[1])
    at = free[0].tolist().index(end)
    stopped = generate(decoder, embeds, max_new_tokens=8, eos_token_id=(end,))
    assert stopped[0].tolist() == free[0].tolist()[: at + 1] + [2] * (7 - at)
    assert stopped[1].tolist() == free[1].tolist()
    config = GenerationConfig(max_new_tokens=8, eos_token_id=(end,))
    steps = list(generate_steps(decoder, embeds, None, config))
    assert [step.ids[0] for step in steps[at + 1 :]] == [FINISHED] * (7 - at)


def test_stop_is_called_after_every_token(decoder, embeds):
    calls = []

    def stop(row, ids):
        calls.append((row, list(ids)))
        return len(ids) == 3

    steps = list(generate_steps(decoder, embeds, None, GenerationConfig(max_new_tokens=9), stop))
    assert len(steps) == 3 and [len(ids) for _, ids in calls] == [1, 2, 3]


def test_no_repeat_ngram(decoder, embeds):
    ids = generate(decoder, embeds, max_new_tokens=30, no_repeat_ngram_size=2)[0].tolist()
    pairs = list(zip(ids, ids[1:]))
    assert len(pairs) == len(set(pairs))


def test_right_padding_is_refused(decoder, embeds):
    mask = paddle.to_tensor([[1] * (PROMPT - 1) + [0]])
    with pytest.raises(ValueError, match="pad on the left"):
        generate(decoder, embeds, mask, max_new_tokens=2)


def test_steps_are_launched_ahead_where_the_device_runs_in_parallel(decoder, embeds, ahead, monkeypatch):
    launched, forward = [], type(decoder).forward
    monkeypatch.setattr(type(decoder), "forward", lambda *a, **k: launched.append(1) or forward(*a, **k))
    steps = generate_steps(decoder, embeds, None, GenerationConfig(max_new_tokens=3))
    counts = [(next(steps), len(launched))[1] for _ in range(3)]
    assert counts == ([2, 3, 3] if ahead else [1, 2, 3])
    assert list(steps) == [] and len(launched) == 3
