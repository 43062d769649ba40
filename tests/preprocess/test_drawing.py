"""Boxes in pictures: where they are drawn, and labels in scripts that need a font of their own."""

import numpy as np
import pytest
from PIL import Image

from paddle_internvl import draw_boxes
from paddle_internvl.preprocess import drawing
from paddle_internvl.prompt.grounding import Box

PICTURE = Image.new("RGB", (300, 200), "white")


def test_box_and_label_are_drawn_into_a_copy():
    drawn = np.asarray(draw_boxes(PICTURE, [Box("dog", 50, 80, 250, 180)]))
    colour = drawn[180, 150]
    assert (colour != 255).any() and (drawn[80:180, 50] == colour).all() and (drawn[110:170, 60:240] == 255).all()
    assert (drawn[:79] != 255).any()  # the label stands above the box
    assert (np.asarray(PICTURE) == 255).all()


def test_labels_share_colours_and_stay_inside():
    boxes = [Box("a", 10, 0, 60, 60), Box("a", 100, 20, 160, 90), Box("b", 200, 20, 299, 199)]
    drawn = np.asarray(draw_boxes(PICTURE, boxes))
    assert (drawn[60, 30] == drawn[90, 130]).all() and (drawn[60, 30] != drawn[199, 250]).any()


def test_a_script_without_a_font_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(drawing, "cjk_font", lambda: None)
    with pytest.raises(ValueError, match="install fonts-noto-cjk, or give font=FILE"):
        draw_boxes(PICTURE, [Box("狗", 50, 80, 250, 180)])
    draw_boxes(PICTURE, [Box("é", 50, 80, 250, 180)])


@pytest.mark.skipif(drawing.cjk_font() is None, reason="this machine has no CJK font")
def test_cjk_characters_differ():
    one, other = (np.asarray(draw_boxes(PICTURE, [Box(label, 50, 80, 250, 180)])) for label in "狗猫")
    assert (one != other).any()  # not both the box of a missing glyph
