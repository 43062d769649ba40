"""Layout of the page: its controls, and their labels in each language.

In: names of adapters, examples. Out: controls by name, placed where this is called within `gr.Blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from paddle_internvl.webdemo.comparison import SETTINGS, SIDES
from paddle_internvl.webdemo.streaming_session import MAX_TILES
from paddle_internvl.webdemo.texts import LANGUAGES, text
from paddle_internvl.webdemo.uploads import MAX_FRAMES

LATEX = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "$", "right": "$", "display": False},
    {"left": "\\(", "right": "\\)", "display": False},
]
_CLIPS = [".mp4", ".mov", ".webm", ".mkv", ".avi", ".gif", ".webp", ".png"]
# ranges of the settings that the comparison has for each side
SLIDERS = {
    "temperature": {"minimum": 0, "maximum": 2, "step": 0.05, "value": 0},
    "top_p": {"minimum": 0.05, "maximum": 1, "step": 0.05, "value": 1},
    "penalty": {"minimum": 1, "maximum": 2, "step": 0.05, "value": 1},
    "limit": {"minimum": 1, "maximum": 4096, "step": 1, "value": 512},
    "tiles": {"minimum": 1, "maximum": MAX_TILES, "step": 1, "value": 12},
}
VIEWS = ("conversation", "comparison")
# control -> property -> name in `texts`
LABELS = {
    "title": {"value": "title"},
    "language": {"label": "language"},
    "chat": {"label": "chat", "placeholder": "greeting"},
    "box": {"label": "box", "placeholder": "box_hint"},
    "stop": {"value": "stop"},
    "again": {"value": "again"},
    "clear": {"value": "clear"},
    "attention": {"value": "attention"},
    "seen_title": {"value": "seen"},
    "video_panel": {"label": "video"},
    "clip": {"label": "clip"},
    "frames": {"label": "frames", "info": "frames_hint"},
    "settings_panel": {"label": "settings"},
    "system": {"label": "system"},
    "thinking": {"label": "thinking", "info": "thinking_hint"},
    "keep_thoughts": {"label": "keep_thoughts", "info": "keep_thoughts_hint"},
    "temperature": {"label": "temperature", "info": "temperature_hint"},
    "top_p": {"label": "top_p"},
    "penalty": {"label": "penalty"},
    "limit": {"label": "limit"},
    "tiles": {"label": "tiles"},
    "adapter": {"label": "adapter", "info": "adapter_hint"},
    "save_json": {"value": "save_json"},
    "save_markdown": {"value": "save_markdown"},
    "view": {"label": "view"},
    "comparison_hint": {"value": "comparison_hint"},
    "question": {"label": "box", "placeholder": "box_hint"},
    "stop_both": {"value": "stop"},
    **{f"{side}_chat": {"label": f"answer_{side}", "placeholder": f"answer_{side}"} for side in SIDES},
}
LABELS |= {f"compared_{name}": LABELS[name] for name in ("video_panel", "clip", "frames")}
LABELS |= {f"{side}_settings": {"label": f"settings_{side}"} for side in SIDES}
LABELS |= {f"{side}_{name}": LABELS[name] for side in SIDES for name in SETTINGS}


def labels(control: str, language: str) -> dict:
    """The text properties of a control."""
    properties = {name: text(key, language) for name, key in LABELS[control].items()}
    if control in ("title", "seen_title"):
        properties["value"] = f"{'#' if control == 'title' else '##'} {properties['value']}"
    return properties


class Controls(dict):
    """The controls by name."""

    def make(self, kind, name: str, **options):
        """Place a control with its English labels."""
        self[name] = kind(**labels(name, "en"), **options, elem_id=name)
        return self[name]


def place(adapters: Sequence[str], examples: list[dict], thinking: bool) -> Controls:
    """Place the controls of the page.

    Args:
        adapters: names of LoRA adapters to choose from.
        examples: see `gr.Chatbot`.
        thinking: whether thoughts are asked for at first.
    """
    controls = Controls()
    with gr.Row(elem_id="header"):
        controls.make(gr.Markdown, "title")
        controls["strip"] = gr.HTML(elem_id="strip")
        controls.make(gr.Radio, "view", choices=view_choices("en"), value=VIEWS[0], container=False, min_width=170,
                      scale=0)  # fmt: skip
        controls.make(gr.Radio, "language", choices=[(name, key) for key, name in LANGUAGES.items()], value="en",
                      container=False, min_width=170, scale=0)  # fmt: skip
    with gr.Row(elem_id="conversation"):
        with gr.Column(scale=3, min_width=320):
            _conversation(controls, examples)
        with gr.Column(scale=2, min_width=320):
            controls.make(gr.Markdown, "seen_title")
            controls.make(gr.Slider, "tiles", **SLIDERS["tiles"])  # moves the grid below
            controls["preview"] = gr.HTML(elem_id="seen")
            _panels(controls, adapters, thinking)
    return controls


def _conversation(controls: Controls, examples: list[dict]) -> None:
    make = controls.make
    make(gr.Chatbot, "chat", height="calc(100vh - 300px)", min_height=320, editable="user", buttons=["copy"],
         sanitize_html=True, allow_tags=False, latex_delimiters=LATEX, layout="bubble", feedback_options=None,
         show_label=False, group_consecutive_messages=False, examples=examples)  # fmt: skip
    make(gr.MultimodalTextbox, "box", file_types=["image"], file_count="multiple", sources=["upload"], lines=1,
         max_lines=8, autofocus=True, show_label=False)  # fmt: skip
    with gr.Row(elem_id="actions"):
        make(gr.Button, "stop", interactive=False, variant="stop", min_width=80)
        make(gr.Button, "again", min_width=80)
        make(gr.Button, "clear", min_width=80)
        make(gr.Button, "attention", min_width=80)
        make(gr.Button, "save_json", min_width=80)
        make(gr.Button, "save_markdown", min_width=80)


def _panels(controls: Controls, adapters: Sequence[str], thinking: bool) -> None:
    """Panels of video and settings. No tabs: Gradio's keep the browser busy for good after their labels change."""
    make = controls.make
    place_clip(controls)
    with make(gr.Accordion, "settings_panel", open=False):
        make(gr.Dropdown, "adapter", choices=adapter_choices(adapters, "en"), value="", visible=bool(adapters))
        make(gr.Textbox, "system", lines=2, max_lines=8, interactive=not thinking)
        make(gr.Checkbox, "thinking", value=thinking)
        make(gr.Checkbox, "keep_thoughts", value=True)
        for name in ("temperature", "top_p", "penalty", "limit"):
            make(gr.Slider, name, **SLIDERS[name])


def place_clip(controls: Controls, prefix: str = "") -> None:
    """Place the panel of a question's clip.

    Args:
        controls: get the panel's, `clip` and `frames`.
        prefix: of their names.
    """
    with controls.make(gr.Accordion, f"{prefix}video_panel", open=False):
        controls.make(gr.File, f"{prefix}clip", file_types=_CLIPS, type="filepath", height=130,
                      elem_classes="clip-file")  # fmt: skip
        controls.make(gr.Slider, f"{prefix}frames", minimum=1, maximum=MAX_FRAMES, step=1, value=8)


def view_choices(language: str) -> list[tuple[str, str]]:
    """The choices of the page's views."""
    return [(text(view, language), view) for view in VIEWS]


def adapter_choices(adapters: Sequence[str], language: str) -> list[tuple[str, str]]:
    """The choices of adapters, none first."""
    return [(text("no_adapter", language), ""), *((name, name) for name in adapters)]
