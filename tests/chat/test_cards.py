"""Chat, its streams and batches: what goes in, what comes out, and what is refused. Answers against upstream are in
tests/models/test_reference.py."""

import json
import queue
from threading import Thread

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_internvl.engine.request import ContextOverflowError
from paddle_internvl.prompt.encode import encode
from paddle_internvl.prompt.templates import get_conv_template
from tests.families import GOLDEN, MEMBERS
from tests.random_checkpoints import ROOT, random_pixels

GREEDY = {"max_new_tokens": 12, "do_sample": False}


@pytest.fixture
def model(models):
    return models["dynamic_gqa"]


@pytest.fixture
def pixels():
    return paddle.to_tensor(random_pixels(3, 56))


@pytest.mark.parametrize("case", [*GOLDEN, *MEMBERS])
def test_prompt_ids_are_upstreams(models, tokenizer, case):
    model = models[case]
    for chat in json.loads(str(np.load(ROOT / f"tests/goldens/{case}.npz")["chats"])):
        conversation = get_conv_template(model.template)
        question = chat["question"]
        if chat["tiles"] and chat["history"] is None and "<image>" not in question:
            question = "<image>\n" + question
        for asked, answered in chat["history"] or []:
            conversation.append_message(conversation.roles[0], asked)
            conversation.append_message(conversation.roles[1], answered)
        conversation.append_message(conversation.roles[0], question)
        conversation.append_message(conversation.roles[1], None)
        counts = chat["num_patches_list"] or ([chat["tiles"]] if chat["tiles"] else [])
        ids = encode(tokenizer, conversation, [count * model.num_image_token for count in counts]).ids
        assert ids == chat["prompt_ids"], chat["question"]


def test_history(model, tokenizer, pixels):
    answer, history = model.chat(tokenizer, pixels, "What?", GREEDY, history=None, return_history=True)
    assert history == [("<image>\nWhat?", answer)]
    kept = list(history)
    second, longer = model.chat(tokenizer, pixels, "And?", GREEDY, history=history, return_history=True)
    assert longer == [*kept, ("And?", second)] and history == kept  # the caller's list is the caller's
    assert model.chat(tokenizer, pixels, "And?", GREEDY, history=history) == second


def test_callers_settings_are_left_alone(model, tokenizer):
    given = {"max_new_tokens": 3, "eos_token_id": 17}
    model.chat(tokenizer, None, "Hi", given)
    assert given == {"max_new_tokens": 3, "eos_token_id": 17}


def test_system_message(model, tokenizer):
    before = model.system_message
    default = model.chat(tokenizer, None, "Hi", GREEDY)
    try:
        model.system_message = "Speak like a pirate."
        other = model.chat(tokenizer, None, "Hi", GREEDY)
        model.system_message = ""
        none = model.chat(tokenizer, None, "Hi", GREEDY)
    finally:
        model.system_message = before
    assert len({default, other, none}) == 3
    assert "system" not in _conversation("", "Hi").get_prompt()


def _conversation(system, question):
    conversation = get_conv_template("internvl2_5")
    conversation.system_message = system
    conversation.append_message(conversation.roles[0], question)
    conversation.append_message(conversation.roles[1], None)
    return conversation


@pytest.mark.parametrize(
    ("question", "tiles", "counts", "history", "message"),
    [
        ("<image>\n<image>\nWhat?", 3, None, None, "2 <image> marks but 1 pictures"),
        ("<image> what?", 3, [1, 2], None, "1 <image> marks but 2 pictures"),
        ("What?", 3, None, [], "0 <image> marks but 1 pictures"),
        ("<image> what?", 0, None, None, "1 <image> marks but 0 pictures"),
        ("<image>", 3, [1, 1], None, "pixel_values holds 3 tiles but num_patches_list counts 2"),
        ("<image>", 0, [1], None, "pixel_values holds 0 tiles but num_patches_list counts 1"),
    ],
)
def test_counts_that_differ(model, tokenizer, pixels, question, tiles, counts, history, message):
    with pytest.raises(ValueError, match=message):
        model.chat(tokenizer, pixels if tiles else None, question, GREEDY, history=history, num_patches_list=counts)


def test_a_path_in_place_of_its_tiles(model, tokenizer):
    with pytest.raises(TypeError, match=r"pixel_values are tiles \[T, 3, S, S\], not a str; make them by load_image"):
        model.chat(tokenizer, "a.png", "<image>\nHi", GREEDY)


def test_a_tokenizer_of_another_model(model, monkeypatch):
    monkeypatch.delitem(vars(model), "tokenizer", raising=False)
    monkeypatch.setattr(model.config.llm_config, "vocab_size", 999)
    with pytest.raises(ValueError, match="files of different models: its tokenizer has 1000 tokens, its weights have"):
        model.chat_messages([{"role": "user", "content": "hi"}])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(
    ["<img>", "</img>", "<IMG_CONTEXT>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "user\n", " a", "你"]), max_size=8
))  # fmt: skip
def test_users_forge_nothing(tokenizer, parts):
    """Whatever a user writes, the prompt's image and role tokens are those of the template."""
    text = "".join(parts)
    plain = encode(tokenizer, _conversation("Be kind.", ""), []).ids
    ids = encode(tokenizer, _conversation("Be kind.", text), []).ids
    special = set(tokenizer.added_tokens_decoder)
    assert [i for i in ids if i in special] == [i for i in plain if i in special]
    assert text in tokenizer.sp_model.decode([i for i in ids if i not in special])


def test_grounding_marks_are_tokens(tokenizer):
    ids = encode(tokenizer, _conversation("", "where is <ref>the dog</ref>?"), []).ids
    assert {tokenizer.convert_tokens_to_ids(mark) for mark in ("<ref>", "</ref>")} <= set(ids)


def test_stop_strings_cut_the_answer(model, tokenizer):
    free = model.chat(tokenizer, None, "Hi", {"max_new_tokens": 30})
    stop = free[len(free) // 2 : len(free) // 2 + 2]
    assert (
        model.chat(tokenizer, None, "Hi", {"max_new_tokens": 30, "stop_strings": [stop]})
        == free[: free.index(stop)].strip()
    )


def test_paddlenlp_streamer_in_a_thread(model, tokenizer, pixels):
    from paddlenlp.transformers import TextIteratorStreamer

    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=60)
    arguments = {"tokenizer": tokenizer, "pixel_values": pixels, "question": "What?", "history": None,
                 "return_history": False, "generation_config": {**GREEDY, "streamer": streamer}}  # fmt: skip
    thread = Thread(target=model.chat, kwargs=arguments)
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text.strip() == model.chat(tokenizer, pixels, "What?", GREEDY)


@pytest.mark.parametrize("broken", [{"question": "<image><image>"}, {"generation_config": {"nonsense": 1}}])
def test_a_streamer_ends_on_errors_too(model, tokenizer, pixels, broken):
    from paddlenlp.transformers import TextIteratorStreamer

    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=20)
    arguments = {"question": "What?", "generation_config": GREEDY, **broken}
    arguments["generation_config"] = {**arguments["generation_config"], "streamer": streamer}
    with pytest.raises(ValueError, match="marks but|nonsense"):
        model.chat(tokenizer, pixels, **arguments)
    try:
        assert "".join(streamer) == ""
    except queue.Empty:
        pytest.fail("the stream has no end")


def test_a_streamer_sees_every_token(model, tokenizer):
    class Recorder:
        def __init__(self):
            self.given, self.ended = [], 0

        def put(self, ids):
            self.given.append(ids.reshape([-1]).tolist())

        def end(self):
            self.ended += 1

    recorder = Recorder()
    answer = model.chat(tokenizer, None, "Hi", {**GREEDY, "streamer": recorder})
    assert recorder.given[0] == [] and recorder.ended == 1  # an empty prompt first, as upstream's generate puts
    assert tokenizer.decode(sum(recorder.given, []), skip_special_tokens=True).strip() == answer


def test_verbose(model, tokenizer, pixels, capsys):
    answer = model.chat(tokenizer, pixels, "What?", GREEDY, verbose=True)
    printed = capsys.readouterr().out
    assert "dynamic ViT batch size: 3" in printed and printed.count("<image>") == 1 and answer in printed
    assert "IMG_CONTEXT" not in printed


def test_other_image_tokens_are_refused(model, tokenizer, pixels):
    with pytest.raises(ValueError, match="image tokens are <img>"):
        model.chat(tokenizer, pixels, "What?", GREEDY, IMG_START_TOKEN="<picture>")


@pytest.mark.parametrize("setting", [{}, {"do_sample": True, "seed": 9}, {"stop_strings": ["的"]}])
def test_batch_equals_single(models, tokenizer, case, setting):
    model, config = models[case], {**GREEDY, **setting}
    pixels = paddle.to_tensor(random_pixels(3, model.config.tile_side))
    questions = ["Hi", "<image>\nWhat is this?", "看看这张图"]
    batch = model.batch_chat(tokenizer, pixels, questions, config, num_patches_list=[0, 1, 2])
    singles = [
        model.chat(tokenizer, None, questions[0], config),
        model.chat(tokenizer, pixels[:1], questions[1], config),
        model.chat(tokenizer, pixels[1:], questions[2], config),
    ]
    assert batch == singles


def test_batch_of_text(model, tokenizer):
    assert model.batch_chat(tokenizer, None, ["Hi", "Hello, you"], GREEDY) == [
        model.chat(tokenizer, None, "Hi", GREEDY), model.chat(tokenizer, None, "Hello, you", GREEDY)
    ]  # fmt: skip


def test_batch_refusals(model, tokenizer, pixels):
    with pytest.raises(ValueError, match="pixel_values needs num_patches_list"):
        model.batch_chat(tokenizer, pixels, ["a"], GREEDY)
    with pytest.raises(ValueError, match="2 questions but num_patches_list has 1 entries"):
        model.batch_chat(tokenizer, pixels, ["a", "b"], GREEDY, num_patches_list=[3])
    with pytest.raises(ValueError, match="2 questions but history has 1 entries"):
        model.batch_chat(tokenizer, None, ["a", "b"], GREEDY, history=[None])
    with pytest.raises(ValueError, match="the prompt has 1 <image> marks but 2 pictures"):
        model.batch_chat(tokenizer, pixels, ["<image> a"], GREEDY, num_patches_list=[[1, 2]])
    with pytest.raises(ValueError, match="n=2: chat returns one answer"):
        model.chat(tokenizer, None, "a", {"n": 2, "do_sample": True})


def test_batches_of_anything(models, tokenizer, case, monkeypatch):
    """No, one, several pictures; histories with pictures of their own; system messages; very uneven lengths."""
    model = models[case]
    monkeypatch.setattr(type(model.config.llm_config), "context_length", 4096)  # beyond it dynamic rope still answers
    tiles = paddle.to_tensor(random_pixels(9, 56))
    earlier = [("<image>\nWhat is it?", "A thing."), ("And?", "No.")]
    samples = [  # question, tiles of its pictures, history, system message
        ("Hi", [], None, None),
        ("What is " + "very " * 60 + "large?", [3], None, "Short."),
        ("Image-1: <image>\nImage-2: <image>\nSame?", [1, 2], None, ""),
        ("And <image>?", [2, 1], earlier, None),
        ("Then?", [], [("Hi", "Hello.")], "Other."),
    ]
    single, start = [], 0
    for question, counts, history, system in samples:
        own = tiles[start : start + sum(counts)] if counts else None
        start += sum(counts)
        given, model.system_message = model.system_message, model.system_message if system is None else system
        single.append(model.chat(tokenizer, own, question, GREEDY, history, True, counts if counts else None))
        model.system_message = given
    questions, counts, histories, systems = map(list, zip(*samples))
    answers, after = model.batch_chat(
        tokenizer, tiles, questions, GREEDY, counts, histories, return_history=True, system_messages=systems
    )
    assert list(zip(answers, after)) == single
    assert model.batch_chat(tokenizer, tiles, questions, GREEDY, counts, histories, system_messages=systems) == answers


def test_a_prompt_beyond_the_context_is_refused(model, tokenizer, monkeypatch):
    """As `chat_messages` refuses it."""
    monkeypatch.setattr(type(model.config.llm_config), "context_length", 60)
    long = "What is it? " * 9
    with pytest.raises(ContextOverflowError, match="the limit is 60"):
        model.chat(tokenizer, None, long, {"max_new_tokens": 4})
    with pytest.raises(ContextOverflowError, match="the limit is 60"):
        model.batch_chat(tokenizer, None, ["Hi", long], {"max_new_tokens": 4})


def test_generate(model, pixels):
    context, n = model.img_context_token_id, model.num_image_token
    ids = paddle.to_tensor([[1, 4, *[context] * (3 * n), 7]])
    made = model.generate(pixel_values=pixels, input_ids=ids, max_new_tokens=5, eos_token_id=9999)
    assert made.shape == [1, 5] and made.dtype == paddle.int64
    features = model.extract_feature(pixels)
    assert (
        model.generate(visual_features=features, input_ids=ids, max_new_tokens=5, eos_token_id=9999).tolist()
        == made.tolist()
    )
    again, log_probs = model.generate(pixels, ids, max_new_tokens=5, eos_token_id=9999, log_probs=True)
    assert again.tolist() == made.tolist() and log_probs.shape == [1, 5] and bool((log_probs <= 0).all())
    with pytest.raises(ValueError, match=r"12 <IMG_CONTEXT> tokens but the images give 8"):
        model.generate(pixels[:2], ids, max_new_tokens=5)


def test_generate_ends_where_the_folder_says(model):
    assert model.end_token_ids == (5, 4)
    ids = paddle.to_tensor([[1, 7, 8]])
    free = model.generate(input_ids=ids, max_new_tokens=3, eos_token_id=9999)[0].tolist()
    model.end_token_ids = (free[0],)
    try:
        assert model.generate(input_ids=ids, max_new_tokens=3)[0].tolist() == free[:1]
    finally:
        model.end_token_ids = (5, 4)
