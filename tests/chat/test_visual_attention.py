"""Attention of an answer to its pictures: shares of the steps that generated it; generation stays as it is."""

import numpy as np
import pytest
from PIL import Image

from paddle_internvl.chat.visual_attention import visual_attention
from paddle_internvl.engine.request import ContextOverflowError
from paddle_internvl.models import decoder as decoder_module
from tests.random_checkpoints import ROOT

WIDE, SMALL = Image.effect_noise((168, 56), 60).convert("RGB"), Image.effect_noise((56, 56), 60).convert("RGB")


def asked(*pictures):
    parts = [{"type": "image", "image": picture} for picture in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]}]


def test_rows_and_columns(models, case):
    model = models[case]
    messages = asked(WIDE, SMALL)
    response = model.chat_messages(messages, {"max_new_tokens": 6, "do_sample": False})
    found = visual_attention(model, model.tokenizer, messages, response.token_ids)
    visual = sum(picture.tokens for picture in response.pictures)
    assert found.weights.shape == (len(response.token_ids), visual) and (found.weights > 0).all()
    assert (found.weights.sum(axis=1) < 1).all()
    maps = found.maps()
    assert [each.grid.tiles for each in maps] == [picture.tiles for picture in response.pictures]
    assert sum(each.share for each in maps) == pytest.approx(found.weights.mean(axis=0).sum(), rel=1e-5)
    again = model.chat_messages(messages, {"max_new_tokens": 6, "do_sample": False})
    assert again.token_ids == response.token_ids
    # a token's row is of the step that generated it: what came later plays no part
    first = visual_attention(model, model.tokenizer, messages, response.token_ids[:2])
    np.testing.assert_allclose(first.weights, found.weights[:2], atol=1e-6)


def test_v1_is_transposed(models):
    by_version = {models[name].ps_version: models[name] for name in ("biased_v1", "qwen2")}
    assert set(by_version) == {"v1", "v2"}
    for version, model in by_version.items():
        assert visual_attention(model, model.tokenizer, asked(SMALL), "A.").transposed == (version == "v1")


def test_refusals(models):
    model = models["qwen2"]
    with pytest.raises(ValueError, match="no picture"):
        visual_attention(model, model.tokenizer, [{"role": "user", "content": "Hi"}], "A.")
    with pytest.raises(ValueError, match="no tokens"):
        visual_attention(model, model.tokenizer, asked(SMALL), [])
    with pytest.raises(ContextOverflowError):
        visual_attention(model, model.tokenizer, asked(SMALL), "A.", context_length=20)


def test_generation_never_computes_weights(models, monkeypatch):
    """The native layers run as before: no query is made in Python."""
    model = models["qwen2"]
    if model.language_model.model.native is None:
        pytest.skip("no native layers here")
    monkeypatch.setattr(decoder_module.DecoderAttention, "queries", lambda *_: pytest.fail("a query"))
    model.chat_messages(asked(SMALL), {"max_new_tokens": 3})


def test_the_bundled_model_looks_at_what_it_names():
    """An answer about the shape in a corner pays that corner more than twice the attention of its area."""
    from paddlenlp.transformers import AutoModel

    model = AutoModel.from_pretrained(str(ROOT / "demo/checkpoints/internvl-tiny"))
    picture = Image.open(ROOT / "demo/assets/shapes.png")
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "Where is the green triangle?"}]
    (made,) = visual_attention(model, model.tokenizer, [{"role": "user", "content": content}], "bottom right").maps()
    corner = made.tiles[4:, 4:].sum() / made.tiles.sum()  # 9 of 49 tokens, the triangle's among them
    assert corner > 2 * 9 / 49 and 0 < made.share < 1
