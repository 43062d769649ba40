"""The pipeline's forms of prompts and settings on random weights: equal to messages, in order, refused by name."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from paddle_internvl import IMAGE_TOKEN, EngineConfig, GenerationConfig, pipeline

TOKENS = {"max_new_tokens": 6}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
OTHER = PICTURE.rotate(90)


@pytest.fixture(scope="module")
def pipe(hf_folders):
    with pipeline(hf_folders["qwen2"], EngineConfig(max_batch_size=2, session_len=400)) as pipe:
        yield pipe


def content(*pictures, text="What?"):
    return [
        {
            "role": "user",
            "content": [*({"type": "image", "image": p} for p in pictures), {"type": "text", "text": text}],
        }
    ]


def test_every_form_is_messages(pipe):
    def said(messages):
        return pipe.model.chat_messages(messages, TOKENS).text

    assert pipe("Hi", TOKENS).text == said([{"role": "user", "content": "Hi"}])
    one, two = said(content(PICTURE)), said(content(PICTURE, OTHER))
    assert pipe(("What?", PICTURE), TOKENS).text == pipe((PICTURE, "What?"), TOKENS).text == one
    assert pipe(("What?", [PICTURE, OTHER]), TOKENS).text == two
    assert pipe(content(PICTURE), TOKENS).text == one
    marked = f"Image-1: {IMAGE_TOKEN}\nImage-2: {IMAGE_TOKEN}\nWhat?"
    assert pipe((marked, [PICTURE, OTHER]), TOKENS).text == two
    many = pipe(["Hi", ("What?", PICTURE), content(PICTURE, OTHER)], TOKENS)
    assert [r.text for r in many][1:] == [one, two] and [r.index for r in many] == [0, 1, 2]


def test_one_config_per_prompt(pipe):
    configs = [GenerationConfig(max_new_tokens=n) for n in (2, 2, 5)]
    assert [r.generate_token_len for r in pipe(["a", "b", "c"], configs, use_tqdm=True)] == [2, 2, 5]
    with pytest.raises(ValueError, match="3 prompts but 2 generation configs"):
        pipe(["a", "b", "c"], configs[:2])


def test_a_stream_is_the_answer(pipe):
    prompts = ["Hi", ("What?", PICTURE)]
    whole = pipe(prompts, {"max_new_tokens": 20})
    pieces = list(pipe.stream_infer(prompts, {"max_new_tokens": 20}))
    for i, response in enumerate(whole):
        own = [piece for piece in pieces if piece.index == i]
        assert "".join(piece.text for piece in own) == response.text
        assert [p.finish_reason for p in own[:-1]] == [None] * (len(own) - 1)
        assert (own[-1].finish_reason, own[-1].token_ids) == (response.finish_reason, response.token_ids)


def test_calls_from_several_threads(pipe):
    """Each thread gets its own answers, as one call after another gives them."""
    prompts = [("What?", PICTURE), "Hi", ("Why?", [OTHER]), *(f"Question {i}?" for i in range(9))]
    expected = [pipe(prompt, TOKENS).text for prompt in prompts]

    def streamed(prompt):
        return "".join(piece.text for piece in pipe.stream_infer(prompt, TOKENS))

    with ThreadPoolExecutor(3) as pool:
        assert [response.text for response in pool.map(lambda prompt: pipe(prompt, TOKENS), prompts)] == expected
        assert list(pool.map(streamed, prompts)) == expected


def test_a_pipeline_that_is_not_closed_ends_its_thread(hf_folders):
    before = set(threading.enumerate())
    pipe = pipeline(hf_folders["llama"], EngineConfig(max_batch_size=1, session_len=128))
    (thread,) = set(threading.enumerate()) - before
    assert pipe("Hi", {"max_new_tokens": 1}).generate_token_len == 1
    del pipe
    gc.collect()
    assert not thread.is_alive()


def test_unknown_options_are_refused(hf_folders):
    with pytest.raises(TypeError, match="nonsense"):
        pipeline(hf_folders["llama"], nonsense=1)


def test_sessions(pipe):
    session = pipe.chat(("What?", PICTURE), gen_config=TOKENS)
    first = session.response.text
    session = pipe.chat("Why?", session, TOKENS)
    turns = [*content(PICTURE), {"role": "assistant", "content": first}, {"role": "user", "content": "Why?"}]
    assert session.response.text == pipe(turns, TOKENS).text
    assert session.history[0] == ("What?", first) and "User: What?" in str(session) and session._repr_html_()
    streamed = pipe.session()
    text = "".join(r.text for r in pipe.chat(("What?", PICTURE), streamed, TOKENS, stream_response=True))
    assert text == first == streamed.response.text and len(streamed.messages) == 2


@pytest.mark.parametrize(
    ("prompt", "settings", "message"),
    [
        (3, {}, "a prompt is text, .text, pictures. or messages"),
        ((1, 2), {}, "a prompt is text, .text, pictures. or messages"),
        ((f"{IMAGE_TOKEN} and {IMAGE_TOKEN}", PICTURE), {}, "2 <IMAGE_TOKEN> marks but 1 pictures"),
        ("word " * 300, {}, "the limit is 400"),
        ("Hi", {"top_p": 2}, r"top_p=2 is outside \[0, 1\]"),
        ("Hi", {"response_format": {"type": "yaml"}}, "response_format"),
        ("Hi", {"logits_processors": [1]}, "logits_processors=.* is not supported"),
        ("Hi", {"n": 2}, "n=2 answers of a greedy generation would be equal"),
        ("Hi", {"num_beams": 2, "do_sample": True}, "num_beams=2 goes with neither do_sample"),
    ],
)
def test_refusals(pipe, prompt, settings, message):
    with pytest.raises(ValueError, match=message):
        pipe([prompt] if not isinstance(prompt, (str, tuple)) else prompt, settings)


def test_closed(hf_folders):
    with pipeline(hf_folders["qwen2"]) as pipe:
        assert pipe("Hi", {"max_new_tokens": 1}).generate_token_len == 1
    with pytest.raises(ValueError, match="the pipeline is closed"):
        pipe("Hi")
