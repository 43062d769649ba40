"""Boxes out of answers, whatever the answers look like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_internvl import parse_boxes
from paddle_internvl.prompt.grounding import Box

SIZE = (200, 100)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("<ref>the dog</ref><box>[[100, 200, 500, 1000]]</box>", [Box("the dog", 20, 20, 100, 100)]),
        ("the dog[[100, 200, 500, 1000]]", [Box("the dog", 20, 20, 100, 100)]),
        ("See: the dog\n[[100, 200, 500, 1000]]", [Box("the dog", 20, 20, 100, 100)]),  # on the line before
        ("[[0,0,1000,1000]]", [Box("", 0, 0, 200, 100)]),
        ("[100, 200, 500, 1000]", [Box("", 20, 20, 100, 100)]),
        ("<ref>两只猫</ref><box>[[0,0,500,500],[500, 500, 1000, 1000]]</box>",
         [Box("两只猫", 0, 0, 100, 50), Box("两只猫", 100, 50, 200, 100)]),
        ("A cat: <ref>a</ref><box>[[0,0,10,10]]</box>, <ref>b</ref><box>[[10,10,20,20]]</box>",
         [Box("a", 0, 0, 2, 1), Box("b", 2, 1, 4, 2)]),
        ("<ref>x</ref><box>[[500, 0, 100, 10]]</box>", []),  # right of its own right edge
        ("<box>[[0, 0, 1001, 10]]</box>", []),
        ("<box>[[1, 2, 3]]</box> and __import__('os')", []),
        ("<box>[[1, 2, 3, four]]</box>", []),
        ("<box>[[1, 2, 30, 40", []),
        ("", []),
    ],
)  # fmt: skip
def test_by_hand(text, boxes):
    found = parse_boxes(text, SIZE)
    assert [box.label for box in found] == [box.label for box in boxes]
    for one, other in zip(found, boxes):
        corners = [(box.left, box.top, box.right, box.bottom) for box in (one, other)]
        assert corners[0] == pytest.approx(corners[1])


def test_many_boxes_in_a_long_text():
    """A name that never ends, and thousands of boxes: in quadratic time this would not end."""
    found = parse_boxes("a" * 200_000 + "[[0,0,1000,1000]] b" * 5000, SIZE)
    assert len(found) == 5000 and [len(box.label) for box in found[:2]] == [200_000, 1]


def test_size():
    with pytest.raises(ValueError, match="0 x 5 pixels has no boxes"):
        parse_boxes("[[1,2,3,4]]", (0, 5))


@given(st.text(alphabet="<>[]/refbox0123456789, .ab", max_size=60))
def test_anything_is_survived_and_stays_inside(text):
    for box in parse_boxes(text, SIZE):
        assert 0 <= box.left < box.right <= SIZE[0] and 0 <= box.top < box.bottom <= SIZE[1]


corners = st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True).map(sorted)


@given(st.lists(st.tuples(corners, corners), min_size=1, max_size=4))
def test_what_is_written_is_read(pairs):
    text = ", ".join(f"[{x[0]}, {y[0]}, {x[1]}, {y[1]}]" for x, y in pairs)
    for form in (f"<ref>a</ref><box>[{text}]</box>", f"a[{text}]"):
        found = parse_boxes(form, (1000, 1000))
        assert [(round(b.left), round(b.top), round(b.right), round(b.bottom)) for b in found] == [
            (x[0], y[0], x[1], y[1]) for x, y in pairs
        ]
        assert {box.label for box in found} == {"a"}
