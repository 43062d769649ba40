"""Encoding of conversations: ids with their writers, labels, and placeholders that must fit the pictures."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddlenlp.transformers import AddedToken

from paddle_internvl.prompt.encode import IGNORED, encode, encode_prompt
from paddle_internvl.prompt.special_tokens import IMG_CONTEXT, IMG_END, IMG_START
from paddle_internvl.prompt.templates import Slot, get_conv_template

TEMPLATES = ("Hermes-2", "internlm2-chat", "internvl2_5")


def conversation_of(turns, template="internvl2_5", system="Be kind."):
    conversation = get_conv_template(template)
    conversation.system_message = system
    for i, content in enumerate(turns):
        conversation.append_message(conversation.roles[i % 2], content)
    return conversation


def texts(tokenizer, encoded, writer):
    """Runs of one writer's ids as text."""
    runs, before = [], None
    for token, who in zip(encoded.ids, encoded.writers):
        if who == writer:
            if before != writer:
                runs.append([])
            runs[-1].append(token)
        before = who
    return [tokenizer.decode(run).strip() for run in runs]


def test_every_id_has_its_writer(tokenizer):
    turns = ["<image>\nWhat is it?", "A circle.", "And now?", "A star.", "Sure?", None]
    encoded = encode(tokenizer, conversation_of(turns), [3])
    assert len(encoded.ids) == len(encoded.writers)
    assert encoded.writers[0] == "template" and encoded.ids[0] == tokenizer.bos_token_id
    assert texts(tokenizer, encoded, "system") == ["Be kind."]
    assert texts(tokenizer, encoded, "user") == ["What is it?", "And now?", "Sure?"]
    pictures = [token for token, writer in zip(encoded.ids, encoded.writers) if writer == "picture"]
    assert tokenizer.convert_ids_to_tokens(pictures) == [IMG_START, *[IMG_CONTEXT] * 3, IMG_END]
    learnt = tokenizer.decode([i for i in encoded.labels() if i != IGNORED])
    assert learnt.replace(" ", "") == "Acircle.<|im_end|>Astar.<|im_end|>"


@pytest.mark.parametrize("template", TEMPLATES)
def test_labels_are_answers_and_what_ends_them(tokenizer, template):
    conversation = conversation_of(["one", "1", "two", "2", "three", None], template)
    encoded = encode(tokenizer, conversation, [])
    labels = encoded.labels()
    assert all(label in (IGNORED, token) for label, token in zip(labels, encoded.ids))
    stop = tokenizer.convert_tokens_to_ids(conversation.stop)
    learnt = [i for i in labels if i != IGNORED]
    assert tokenizer.decode(learnt).replace(" ", "") == f"1{conversation.stop}2{conversation.stop}"
    assert learnt.count(stop) == 2 and learnt[-1] == stop
    open_turn = encode(tokenizer, conversation_of(["one", "1", "two", "2", "three"], template), []).ids
    assert encoded.ids[: len(open_turn)] == open_turn
    assert set(labels[len(open_turn) :]) == {IGNORED}


def test_an_empty_answer_is_its_end_token(tokenizer):
    encoded = encode(tokenizer, conversation_of(["Hi", "", "Still there?", None]), [])
    assert [i for i in encoded.labels() if i != IGNORED] == [tokenizer.convert_tokens_to_ids("<|im_end|>")]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab \n<>|你é" + "\u2581"), max_size=12), min_size=1, max_size=5))
def test_writers_follow_whatever_is_written(tokenizer, turns):
    conversation = conversation_of([[turn] for turn in turns])
    encoded = encode(tokenizer, conversation, [])
    assert len(encoded.ids) == len(encoded.writers)
    order = [writer for i, writer in enumerate(encoded.writers) if i == 0 or encoded.writers[i - 1] != writer]
    assert order[0] == "template" and "picture" not in order
    assert encoded.ids == tokenizer.build_inputs_with_special_tokens(
        tokenizer.convert_tokens_to_ids(
            tokenizer.tokens_of(
                part
                for piece in conversation.pieces()
                for part in (
                    tokenizer.split_added_tokens(piece.text) if piece.is_markup else [(piece.text, False)]
                )
            )
        )
    )  # fmt: skip


def test_placeholders_and_pictures_must_agree(tokenizer):
    with pytest.raises(ValueError, match="2 <image> marks but 1 pictures"):
        encode(tokenizer, conversation_of(["<image> <image>", None]), [3])
    slots = conversation_of([[Slot.PICTURE, "<image>"], None])  # in a sequence `<image>` is text
    assert encode(tokenizer, slots, [2]).writers.count("picture") == 4


def with_added_tokens(tokenizer, **flags):
    """A copy of the tokenizer with two tokens of a fine-tune, as transformers' `add_tokens` leaves them."""
    tuned = copy.deepcopy(tokenizer)
    tuned.add_tokens([AddedToken(token, lstrip=False, rstrip=False, **flags) for token in ("<loc_1>", "<loc_10")])
    return tuned


@pytest.mark.parametrize("special", [True, False])
def test_tokens_of_a_fine_tune_are_tokens_in_every_message(tokenizer, special):
    tuned = with_added_tokens(tokenizer, special=special, normalized=not special)
    turns = ["<loc_1> and <loc_10 ?", "At <loc_1>.", "Sure?", None]
    ids = encode_prompt(tuned, conversation_of(turns, system="Use <loc_1>."), [])
    assert [ids.count(tuned.convert_tokens_to_ids(token)) for token in ("<loc_1>", "<loc_10")] == [3, 1]
    assert ids == tuned(conversation_of(turns, system="Use <loc_1>.").get_prompt())["input_ids"]


@pytest.mark.parametrize("forged", ["<|im_end|>", "<|im_start|>", IMG_START, IMG_CONTEXT, "</s>", "<s>"])
def test_control_tokens_in_a_message_are_text(tokenizer, forged):
    tuned = with_added_tokens(tokenizer)
    plain = encode_prompt(tuned, conversation_of(["a", None]), [])
    ids = encode_prompt(tuned, conversation_of([f"a {forged}", None]), [])
    token = tuned.convert_tokens_to_ids(forged)
    assert ids.count(token) == plain.count(token) and len(ids) > len(plain)
    assert forged in tuned.decode(ids)


@pytest.mark.parametrize("special", [True, False])
def test_marks_of_thoughts_are_tokens_unless_special(tokenizer, special):
    tuned = copy.deepcopy(tokenizer)
    tuned.add_tokens([AddedToken("<think>", lstrip=False, rstrip=False, special=special, normalized=not special)])
    conversation = conversation_of(["a <think>", "<think>b", "Sure?", None], system="Use <think>.")
    ids = encode_prompt(tuned, conversation, [])
    assert ids.count(tuned.convert_tokens_to_ids("<think>")) == (0 if special else 3)
    assert (ids == tuned(conversation.get_prompt())["input_ids"]) is not special


def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(ValueError, match="^the user's text has half a surrogate pair at character 2$"):
        encode(tokenizer, conversation_of(["a \ud800", None]), [])
