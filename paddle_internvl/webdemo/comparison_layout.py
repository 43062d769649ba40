"""Layout of the comparison: a question, and a column for the answer and the settings of each side.

In: the page's controls, names of adapters. Out: further controls, `a_…` and `b_…` for the two sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from paddle_internvl.webdemo.comparison import SIDES
from paddle_internvl.webdemo.layout import LATEX, SLIDERS, Controls, adapter_choices, place_clip

_COLUMN, _WIDTH = 320, 200  # pixels of a side and of a setting, at least
_TEMPERATURES = {"a": 0, "b": 1}  # at first, so that the sides differ


def place_comparison(controls: Controls, adapters: Sequence[str], thinking: bool) -> None:
    """Place the controls of the comparison.

    Args:
        controls: of the page; gets the comparison's.
        adapters: names of LoRA adapters to choose from.
        thinking: whether thoughts are asked for at first.
    """
    with gr.Column(elem_id="comparison"):
        controls.make(gr.Markdown, "comparison_hint")
        with gr.Row(elem_id="compared"):
            controls.make(gr.MultimodalTextbox, "question", file_types=["image"], file_count="multiple",
                          sources=["upload"], lines=1, max_lines=8, show_label=False, scale=8)  # fmt: skip
            controls.make(gr.Button, "stop_both", interactive=False, variant="stop", min_width=80, scale=0)
        place_clip(controls, "compared_")
        with gr.Row():
            for side in SIDES:
                controls.make(gr.Chatbot, f"{side}_chat", height=240, min_width=_COLUMN, buttons=["copy"],
                              sanitize_html=True, allow_tags=False, latex_delimiters=LATEX, layout="bubble",
                              feedback_options=None, group_consecutive_messages=False,
                              elem_classes="compared")  # fmt: skip
        with gr.Row():
            for side in SIDES:
                with gr.Column(min_width=_COLUMN):
                    _place_settings(controls, side, adapters, thinking)
                    controls[f"{side}_preview"] = gr.HTML(elem_id=f"{side}_preview", elem_classes="preview")


def _place_settings(controls: Controls, side: str, adapters: Sequence[str], thinking: bool) -> None:
    def make(kind, name: str, **options):
        return controls.make(kind, f"{side}_{name}", **options)

    with make(gr.Accordion, "settings"):
        with gr.Row():
            make(gr.Slider, "temperature", min_width=_WIDTH, **SLIDERS["temperature"] | {"value": _TEMPERATURES[side]})
            make(gr.Slider, "top_p", min_width=_WIDTH, **SLIDERS["top_p"])
        with gr.Row():
            make(gr.Slider, "tiles", min_width=_WIDTH, **SLIDERS["tiles"])
            make(gr.Slider, "limit", min_width=_WIDTH, **SLIDERS["limit"])
        with gr.Row():
            make(gr.Slider, "penalty", min_width=_WIDTH, **SLIDERS["penalty"])
            make(gr.Checkbox, "thinking", value=thinking, min_width=_WIDTH)
        make(gr.Dropdown, "adapter", choices=adapter_choices(adapters, "en"), value="", visible=bool(adapters))
        make(gr.Textbox, "system", lines=1, max_lines=8, interactive=not thinking)
