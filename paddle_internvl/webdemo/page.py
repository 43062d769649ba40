"""The page: layout, labels in each language, and the event handler of each control.

In: an `EngineHost` and a folder of example files. Out: `gr.Blocks`. The event handlers are in `handlers`.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from paddle_internvl.webdemo import event_stream
from paddle_internvl.webdemo.accessible_names import script
from paddle_internvl.webdemo.display import messages
from paddle_internvl.webdemo.engine_host import EngineHost
from paddle_internvl.webdemo.handlers import Handlers
from paddle_internvl.webdemo.session import SessionState
from paddle_internvl.webdemo.streaming_session import MAX_TILES
from paddle_internvl.webdemo.style import CSS
from paddle_internvl.webdemo.texts import LANGUAGES, text
from paddle_internvl.webdemo.uploads import MAX_FRAMES

_LATEX = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "$", "right": "$", "display": False},
    {"left": "\\(", "right": "\\)", "display": False},
]
_CLIPS = [".mp4", ".mov", ".webm", ".mkv", ".avi", ".gif", ".webp", ".png"]
# control -> property -> name in `texts`
_LABELS = {
    "title": {"value": "title"},
    "language": {"label": "language"},
    "chat": {"label": "chat", "placeholder": "greeting"},
    "box": {"label": "box", "placeholder": "box_hint"},
    "stop": {"value": "stop"},
    "again": {"value": "again"},
    "clear": {"value": "clear"},
    "seen_title": {"value": "seen"},
    "video_tab": {"label": "video"},
    "clip": {"label": "clip"},
    "frames": {"label": "frames", "info": "frames_hint"},
    "settings_tab": {"label": "settings"},
    "system": {"label": "system"},
    "thinking": {"label": "thinking", "info": "thinking_hint"},
    "keep_thoughts": {"label": "keep_thoughts", "info": "keep_thoughts_hint"},
    "temperature": {"label": "temperature", "info": "temperature_hint"},
    "top_p": {"label": "top_p"},
    "penalty": {"label": "penalty"},
    "limit": {"label": "limit"},
    "tiles": {"label": "tiles"},
    "examples_tab": {"label": "examples"},
}
# pictures, clip, question in English and in Chinese
_EXAMPLES = (
    (("shapes.png",), None, ("Describe the image.", "描述这张图片。")),
    (("shapes.png",), None, ("Where is the green triangle?", "蓝色的正方形在哪里？")),
    (("wide.png",), None, ("Read the text.", "读出图中的文字。")),
    (("shapes.png", "two.png"), None, ("Which image has more objects?", "哪张图片的物体更多？")),
    ((), "clip.gif", ("Which way does the star move?", "星形往哪个方向移动？")),
)
# controls of `GenerationOptions`, in its order
_OPTIONS = ("system", "temperature", "top_p", "penalty", "limit", "tiles", "thinking", "keep_thoughts")
_QUEUE = "answers"  # Gradio queue of all questions


def _labels(control: str, language: str) -> dict:
    """The text properties of a control."""
    labels = {name: text(key, language) for name, key in _LABELS[control].items()}
    if control in ("title", "seen_title"):
        labels["value"] = f"{'#' if control == 'title' else '##'} {labels['value']}"
    return labels


def build(host: EngineHost, examples: Path | None = None, concurrency: int = 16, thinking: bool = False) -> gr.Blocks:
    """Build the page, not yet launched.

    Args:
        host: of the engine that answers.
        examples: folder of the examples' files; an example without its files is left out; None: no examples.
        concurrency: questions that are answered at once; further questions queue, and the page shows their position.
        thinking: whether a page that has just been opened asks for thoughts.
    """
    handlers, controls = Handlers(host), {}

    def make(kind, control: str, **options):
        controls[control] = kind(**_labels(control, "en"), **options, elem_id=control)
        return controls[control]

    with gr.Blocks(title="InternVL", analytics_enabled=False, fill_width=True) as demo:
        gr.HTML(f"<style>{CSS}</style>", elem_id="style")
        state = gr.State(SessionState())
        with gr.Row():
            make(gr.Markdown, "title")
            make(gr.Radio, "language", choices=[(name, key) for key, name in LANGUAGES.items()], value="en",
                 min_width=260, scale=0)  # fmt: skip
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                _conversation(make)
            with gr.Column(scale=2, min_width=320):
                make(gr.Markdown, "seen_title")
                preview = gr.HTML(elem_id="seen")
                example_buttons = _panels(make, examples, thinking)
        _connect(demo, handlers, controls, state, preview, example_buttons, concurrency)
    demo.queue(max_size=64, default_concurrency_limit=concurrency)
    return demo


def _conversation(make) -> None:
    make(gr.Chatbot, "chat", height="60vh", min_height=280, editable="user", buttons=["copy"], sanitize_html=True,
         allow_tags=False, latex_delimiters=_LATEX, layout="bubble", feedback_options=None,
         show_label=False, group_consecutive_messages=False)  # fmt: skip
    make(gr.MultimodalTextbox, "box", file_types=["image"], file_count="multiple", sources=["upload"], lines=1,
         max_lines=8, autofocus=True)  # fmt: skip
    with gr.Row():
        make(gr.Button, "stop", interactive=False, variant="stop", min_width=80)
        make(gr.Button, "again", min_width=80)
        make(gr.Button, "clear", min_width=80)


def _panels(make, examples: Path | None, thinking: bool) -> list[tuple[gr.Button, tuple]]:
    """Tabs of video, settings and examples. Returns the examples' buttons, each with (pictures, clip, questions)."""
    with make(gr.Tab, "video_tab"):
        make(gr.File, "clip", file_types=_CLIPS, type="filepath", height=160)
        make(gr.Slider, "frames", minimum=1, maximum=MAX_FRAMES, step=1, value=8)
    with make(gr.Tab, "settings_tab"):
        make(gr.Textbox, "system", lines=2, max_lines=8, interactive=not thinking)
        make(gr.Checkbox, "thinking", value=thinking)
        make(gr.Checkbox, "keep_thoughts", value=True)
        make(gr.Slider, "temperature", minimum=0, maximum=2, step=0.05, value=0)
        make(gr.Slider, "top_p", minimum=0.05, maximum=1, step=0.05, value=1)
        make(gr.Slider, "penalty", minimum=1, maximum=2, step=0.05, value=1)
        make(gr.Slider, "limit", minimum=1, maximum=4096, step=1, value=512)
        make(gr.Slider, "tiles", minimum=1, maximum=MAX_TILES, step=1, value=12)
    buttons = []
    with make(gr.Tab, "examples_tab"):
        for pictures, clip, questions in _EXAMPLES:
            files = [examples / name for name in (*pictures, *([clip] if clip else []))] if examples else []
            if files and all(file.is_file() for file in files):
                button = gr.Button(questions[0], icon=str(files[0]), elem_classes="example")
                paths = [str(file) for file in files]
                buttons.append((button, (paths[: len(pictures)], paths[-1] if clip else None, questions)))
    return buttons


def _connect(demo, handlers: Handlers, controls: dict, state, preview, examples: list, concurrency: int) -> None:
    """Connect events to handlers."""
    language, chat, box, clip, stop = (controls[name] for name in ("language", "chat", "box", "clip", "stop"))
    options = [controls[name] for name in _OPTIONS]
    # No API endpoint: programs use the server.
    hidden = {"api_visibility": "private", "show_progress": "hidden"}
    answering = {**hidden, "show_progress": "minimal", "concurrency_id": _QUEUE, "concurrency_limit": concurrency}
    answers = [
        box.submit(handlers.ask, [box, clip, controls["frames"], language, *options, state], [chat, box, clip, stop],
                   **answering),
        controls["again"].click(handlers.regenerate, [language, *options, state], [chat, stop], **answering),
        chat.edit(handlers.edit, [language, *options, state], [chat, stop], **answering),
    ]  # fmt: skip
    ending = {**hidden, "cancels": answers, "queue": False}
    focus_box = {"js": "() => document.querySelector('#box textarea').focus()", **hidden}
    stop.click(None, **focus_box)  # a button that is disabled loses the keyboard focus
    stopped = stop.click(handlers.stop, [language, state], chat, **ending)
    cleared = gr.on([controls["clear"].click, chat.clear], handlers.clear, state, [chat, box, clip], **ending)
    for answer in answers:
        answer.then(handlers.finish, None, stop, queue=False, **hidden)

    def translate(language: str, state: SessionState) -> list:
        properties = {"stop": {"interactive": state.busy}}  # the language may change during the first answer
        labels = [gr.update(**_labels(name, language), **properties.get(name, {})) for name in _LABELS]
        questions = [gr.update(value=example[2][list(LANGUAGES).index(language)]) for _, example in examples]
        return [*labels, *questions, gr.update(value=messages(state.rounds, language))]

    translated = [*(controls[name] for name in _LABELS), *(button for button, _ in examples), chat]
    language.change(translate, [language, state], translated, **hidden)
    prompt = ("frames", "tiles", "system", "thinking", "keep_thoughts")
    question = [box, clip, *(controls[name] for name in prompt), language]
    changes = [control.change for control in question]
    gr.on(changes, handlers.preview, [*question, state], preview, trigger_mode="always_last", **hidden)
    controls["thinking"].change(
        lambda thinking: gr.update(interactive=not thinking), controls["thinking"], controls["system"], **hidden
    )
    for event in (*answers, stopped, cleared):  # not chat.change, which every piece of an answer triggers
        event.then(handlers.preview, [*question, state], preview, **hidden)
    demo.load(None, js=event_stream.SCRIPT, **hidden)
    demo.load(None, js=script(), **hidden)
    demo.load(handlers.on_load, None, [language, *(controls[name] for name in ("system", "tiles", "limit"))], **hidden)
    for button, (pictures, file, questions) in examples:

        def fill_box(language: str, pictures=pictures, file=file, questions=questions) -> tuple:
            return {"text": questions[list(LANGUAGES).index(language)], "files": pictures}, file

        button.click(fill_box, language, [box, clip], **hidden).then(None, **focus_box)
