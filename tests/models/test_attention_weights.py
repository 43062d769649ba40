"""Attention weights of every family, against softmax(q·k / √E) in numpy of the projections' own outputs."""

import numpy as np
import paddle
import pytest

from paddle_internvl.models.attention_weights import attention_weights

LENGTH, PAST = 30, 11
KEYS = [2, 3, 7]


@pytest.fixture
def ids():
    return paddle.to_tensor(np.random.default_rng(3).integers(3, 1000, (1, LENGTH)))


def weights_of(decoder, ids, keys=KEYS, past=PAST):
    cache = decoder.new_cache(1, LENGTH)
    decoder.hidden_states(ids[:, :past], cache=cache)
    embeds = decoder.model.embed_tokens(ids[:, past:])
    weights = attention_weights(decoder, embeds, cache, paddle.to_tensor(keys)).numpy()
    assert cache.length == LENGTH
    return weights


def projections(decoder, ids):
    """Outputs [L, width] of q_proj and k_proj of each layer in one whole forward pass."""
    outputs, hooks = [], []
    for layer in decoder.model.layers:
        for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            hooks.append(linear.register_forward_post_hook(lambda _, __, out: outputs.append(out[0].numpy())))
    decoder.hidden_states(ids)
    for hook in hooks:
        hook.remove()
    assert len(outputs) == 2 * len(decoder.model.layers)
    return zip(outputs[::2], outputs[1::2])


def by_hand(decoder, ids):
    """[L, M], mean over heads and layers."""
    config, total = decoder.config, 0
    e = config.head_dim
    cos, sin = (table[0].numpy() for table in decoder.model.rope.tables(paddle.arange(LENGTH).unsqueeze(0)))

    def heads(x, norm):
        x = x.reshape(LENGTH, -1, e)
        if config.qk_norm:
            x = x / np.sqrt((x**2).mean(-1, keepdims=True) + norm.eps) * norm.weight.numpy()
        rotated = np.concatenate([-x[..., e // 2 :], x[..., : e // 2]], axis=-1)
        return x * cos + rotated * sin  # [L, H, E]

    distance = np.arange(LENGTH)[:, None] - np.arange(LENGTH)
    allowed = (distance >= 0) & (distance < (config.window or LENGTH))
    for layer, (q, k) in zip(decoder.model.layers, projections(decoder, ids)):
        attention = layer.self_attn
        q, k = heads(q, getattr(attention, "q_norm", None)), heads(k, getattr(attention, "k_norm", None))
        k = np.repeat(k, q.shape[1] // k.shape[1], axis=1)
        scores = np.where(allowed, np.einsum("lhe,mhe->hlm", q, k) / np.sqrt(e), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        total = total + (weights / weights.sum(-1, keepdims=True)).mean(0)
    return total / len(decoder.model.layers)


def test_weights_are_softmax_of_q_and_k(decoder, ids):
    expected = by_hand(decoder, ids)
    np.testing.assert_allclose(weights_of(decoder, ids), expected[PAST:, KEYS], atol=2e-6)
    np.testing.assert_allclose(
        weights_of(decoder, ids, list(range(PAST))).sum(-1), expected[PAST:, :PAST].sum(-1), atol=2e-6
    )
    assert expected[PAST:, KEYS].std() > 1e-4, "all weights are alike"


def test_one_token_at_a_time_is_the_same(decoder, ids):
    """As an answer is generated."""
    cache, rows = decoder.new_cache(1, LENGTH), []
    decoder.hidden_states(ids[:, :PAST], cache=cache)
    for position in range(PAST, LENGTH):
        embeds = decoder.model.embed_tokens(ids[:, position : position + 1])
        rows.append(attention_weights(decoder, embeds, cache, paddle.to_tensor(KEYS)).numpy())
    np.testing.assert_allclose(np.concatenate(rows), weights_of(decoder, ids), atol=2e-6)


def test_a_sharded_decoder_is_refused(models, monkeypatch, ids):
    decoder = models["qwen2"].language_model
    monkeypatch.setattr(decoder, "process_group", object())
    with pytest.raises(ValueError, match="whole and on one device"):
        attention_weights(
            decoder, decoder.model.embed_tokens(ids), decoder.new_cache(1, LENGTH), paddle.to_tensor(KEYS)
        )
