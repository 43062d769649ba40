"""Thoughts: split from answers, whole and in pieces, and put before them again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_internvl.prompt.messages import parse_messages
from paddle_internvl.prompt.thinking import (
    THINKING_MESSAGE,
    ThoughtSplitter,
    join_thoughts,
    split_thoughts,
    thinking_system_message,
)


@pytest.mark.parametrize(
    ("text", "thoughts", "answer"),
    [
        ("<think>a\n\nb</think>\nc", "a\n\nb", "c"),
        ("<think>\na\n</think>\n\n c", "\na\n", "c"),
        ("<think>a", "a", ""),  # ended by the token limit
        ("<think>a</thi", "a</thi", ""),
        ("<think>a</think>", "a", ""),
        ("<think></think>a", "", "a"),
        ("<think>a <think> b</think>c</think>", "a <think> b", "c</think>"),
        ("a <think>b</think>", "", "a <think>b</think>"),  # thoughts begin an answer
        (" a", "", " a"),
        ("<thi", "", "<thi"),
        ("", "", ""),
    ],
)
def test_split(text, thoughts, answer):
    assert split_thoughts(text) == (thoughts, answer)


@given(st.lists(st.sampled_from(["<think>", "</think>", "<th", "ink>", "</", "\n", "a", " "]), max_size=8), st.data())
def test_pieces_are_split_as_the_whole_text(parts, data):
    text = "".join(parts)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5))), len(text)]
    splitter = ThoughtSplitter()
    pieces = [splitter.push(text[a:b]) for a, b in zip(cuts, cuts[1:])] + [splitter.finish()]
    assert tuple(map("".join, zip(*pieces))) == split_thoughts(text)


@pytest.mark.parametrize(
    ("before", "text", "expected"),
    [
        ("<think>It", " is</think>\nA", (" is", "A")),
        ("<think>It is</think>", "\nA", ("", "A")),
        ("So", "<think>A</think>", ("", "<think>A</think>")),
    ],
)
def test_a_begun_answer(before, text, expected):
    assert split_thoughts(text, before) == expected


def test_join():
    assert join_thoughts("a", "b") == "<think>a</think>\nb" and join_thoughts(None, "b") == "b"
    assert split_thoughts(join_thoughts(" a\n", "b")) == (" a\n", "b")


def test_only_the_assistants_thoughts_are_left_out():
    text = "<think>a</think>\nb"
    dialogue = parse_messages([
        {"role": "user", "content": text},
        {"role": "assistant", "content": "b", "reasoning_content": "a"},
        {"role": "user", "content": text},
    ])  # fmt: skip
    assert [turn.parts for turn in dialogue.turns] == [(text,)] * 3
    assert [turn.without_thoughts().parts for turn in dialogue.turns] == [(text,), ("b",), (text,)]
    with pytest.raises(ValueError, match=r"messages\[0\]: reasoning_content is a string, not list"):
        parse_messages([{"role": "assistant", "content": "", "reasoning_content": []}])


def test_system_message():
    assert thinking_system_message(None) == THINKING_MESSAGE
    assert thinking_system_message("Write <think> and </think>.") == "Write <think> and </think>."
    for system in ("Be brief.", ""):
        with pytest.raises(ValueError, match="^thinking takes the place of the system message; leave"):
            thinking_system_message(system)
