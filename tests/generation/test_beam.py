"""Beam search against transformers', and invariants that need no reference."""

import numpy as np
import paddle
import pytest

from paddle_internvl import GenerationConfig
from paddle_internvl.generation.beam import beam_search
from paddle_internvl.generation.generate import generate_ids

ENDS = (5, 17, 40, 77, 91, 120, 300, 512, 513, 700)  # many, so that answers differ in length


@pytest.fixture(scope="module")
def decoder(models):
    return models["llama"].language_model


@pytest.fixture(scope="module")
def prompts():
    return paddle.to_tensor(np.random.default_rng(0).integers(20, 900, (3, 9)))


def search(decoder, prompts, mask=None, **settings):
    config = GenerationConfig(max_new_tokens=14, eos_token_id=ENDS, **settings)
    return [ids for ids, _ in beam_search(decoder, decoder.get_input_embeddings()(prompts), mask, config)]


def score(decoder, prompt, answer):
    ids = paddle.concat([prompt, paddle.to_tensor([answer])], axis=1)
    with paddle.no_grad():
        log_probs = paddle.nn.functional.log_softmax(decoder(ids), axis=-1)[0].numpy()
    start = prompt.shape[1] - 1
    return sum(log_probs[start + i, token] for i, token in enumerate(answer))


def test_one_beam_is_greedy(decoder, prompts):
    config = GenerationConfig(max_new_tokens=14, eos_token_id=ENDS)
    for row in range(3):
        prompt = prompts[row : row + 1]
        greedy, _ = generate_ids(decoder, decoder.get_input_embeddings()(prompt), None, config, 0)
        assert search(decoder, prompt, num_beams=1) == [greedy[0].tolist()]


def test_an_answer_does_not_depend_on_the_batch(decoder, prompts):
    together = search(decoder, prompts, num_beams=3)
    assert together == [search(decoder, prompts[row : row + 1], num_beams=3)[0] for row in range(3)]
    padded = paddle.concat([paddle.full([3, 4], 2, "int64"), prompts], axis=1)
    mask = paddle.concat([paddle.zeros([3, 4], "int64"), paddle.ones([3, 9], "int64")], axis=1)
    assert search(decoder, padded, mask, num_beams=3) == together


def test_more_beams_find_likelier_answers(decoder, prompts):
    for row in range(3):
        prompt = prompts[row : row + 1]
        settings = {"length_penalty": 0.0, "early_stopping": False}
        found = [score(decoder, prompt, search(decoder, prompt, num_beams=n, **settings)[0]) for n in (1, 8)]
        assert found[1] >= found[0] - 1e-4


@pytest.mark.torch
@pytest.mark.parametrize("settings", [
    {"num_beams": 2}, {"num_beams": 4}, {"num_beams": 4, "length_penalty": 2.0},
    {"num_beams": 3, "early_stopping": True}, {"num_beams": 3, "length_penalty": 0.0},
    {"num_beams": 3, "repetition_penalty": 1.3}, {"num_beams": 3, "no_repeat_ngram_size": 2},
])  # fmt: skip
def test_the_answers_are_transformers(hf_folders, decoder, prompts, settings, tmp_path):
    import torch
    from transformers import InternVLForConditionalGeneration

    from paddle_internvl.verification.reference import native_folder

    native = native_folder(hf_folders["llama"], tmp_path)
    theirs = InternVLForConditionalGeneration.from_pretrained(native, torch_dtype=torch.float32).eval()
    for row in range(3):
        # As embeddings, so that penalties see what was generated and not the prompt, as ours.
        with torch.no_grad():
            embeds = theirs.get_input_embeddings()(torch.from_numpy(prompts[row : row + 1].numpy()))
            made = theirs.generate(
                inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2]), max_new_tokens=14,
                eos_token_id=list(ENDS), pad_token_id=0, do_sample=False, **settings,
            )[0].tolist()  # fmt: skip
        (ours,) = search(decoder, prompts[row : row + 1], **settings)
        assert made[: len(ours)] == ours and set(made[len(ours) :]) <= {0}
