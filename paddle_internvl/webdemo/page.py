"""The page: its controls, where they stand, what they are called in each language, and which handler each one calls.

In: a `Host` and a folder of example files. Out: `gr.Blocks`. What controls do is in `handlers`.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from paddle_internvl.webdemo.conversation import Visit
from paddle_internvl.webdemo.display import messages
from paddle_internvl.webdemo.handlers import Handlers
from paddle_internvl.webdemo.labels import script
from paddle_internvl.webdemo.speaking import MOST_TILES, Host
from paddle_internvl.webdemo.style import CSS
from paddle_internvl.webdemo.texts import LANGUAGES, text
from paddle_internvl.webdemo.uploads import MOST_FRAMES

_LATEX = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "$", "right": "$", "display": False},
    {"left": "\\(", "right": "\\)", "display": False},
]
_CLIPS = [".mp4", ".mov", ".webm", ".mkv", ".avi", ".gif", ".webp", ".png"]
# control -> property -> text; everything on the page that is said in words
_WORDS = {
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
_ANSWERS = "answers"  # the queue that all questions wait in


def _words(control: str, language: str) -> dict:
    words = {name: text(key, language) for name, key in _WORDS[control].items()}
    if control in ("title", "seen_title"):
        words["value"] = f"{'#' if control == 'title' else '##'} {words['value']}"
    return words


def build(host: Host, examples: Path | None = None, together: int = 16) -> gr.Blocks:
    """The page, not yet launched.

    Args:
        examples: folder of the examples' files; None, or files not there: no examples. together: questions that are
            answered at once; more wait, and see that they do.
    """
    handlers, made = Handlers(host), {}

    def make(kind, control: str, **how):
        made[control] = kind(**_words(control, "en"), **how, elem_id=control)
        return made[control]

    # Files of uploads are removed after an hour; those who keep a page open longer add them again.
    with gr.Blocks(title="InternVL", analytics_enabled=False, delete_cache=(60, 3600), fill_width=True) as demo:
        gr.HTML(f"<style>{CSS}</style>", elem_id="style")
        visit = gr.State(Visit())
        with gr.Row():
            make(gr.Markdown, "title")
            make(gr.Radio, "language", choices=[(name, key) for key, name in LANGUAGES.items()], value="en",
                 min_width=260, scale=0)  # fmt: skip
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                _conversation(make)
            with gr.Column(scale=2, min_width=320):
                make(gr.Markdown, "seen_title")
                seen = gr.HTML(elem_id="seen")
                asks = _panels(make, examples)
        _wire(demo, handlers, made, visit, seen, asks, together)
    demo.queue(max_size=64, default_concurrency_limit=together)
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


def _panels(make, examples: Path | None) -> list[tuple[gr.Button, tuple]]:
    """Video, settings and examples; the examples' buttons, each with what it asks."""
    with make(gr.Tab, "video_tab"):
        make(gr.File, "clip", file_types=_CLIPS, type="filepath", height=160)
        make(gr.Slider, "frames", minimum=1, maximum=MOST_FRAMES, step=1, value=8)
    with make(gr.Tab, "settings_tab"):
        make(gr.Textbox, "system", lines=2, max_lines=8)
        make(gr.Slider, "temperature", minimum=0, maximum=2, step=0.05, value=0)
        make(gr.Slider, "top_p", minimum=0.05, maximum=1, step=0.05, value=1)
        make(gr.Slider, "penalty", minimum=1, maximum=2, step=0.05, value=1)
        make(gr.Slider, "limit", minimum=1, maximum=4096, step=1, value=512)
        make(gr.Slider, "tiles", minimum=1, maximum=MOST_TILES, step=1, value=12)
    asks = []
    with make(gr.Tab, "examples_tab"):
        for pictures, clip, questions in _EXAMPLES:
            files = [examples / name for name in (*pictures, *([clip] if clip else []))] if examples else []
            if files and all(file.is_file() for file in files):
                shown = gr.Button(questions[0], icon=str(files[0]), elem_classes="example")
                paths = [str(file) for file in files]
                asks.append((shown, (paths[: len(pictures)], paths[-1] if clip else None, questions)))
    return asks


def _wire(demo, handlers: Handlers, made: dict, visit, seen, asks: list, together: int) -> None:
    language, chat, box, clip, stop = (made[name] for name in ("language", "chat", "box", "clip", "stop"))
    wishes = [made[name] for name in ("system", "temperature", "top_p", "penalty", "limit", "tiles")]
    # No endpoint is offered to programs: the server is for those.
    hidden = {"api_visibility": "private", "show_progress": "hidden"}
    answering = {**hidden, "show_progress": "minimal", "concurrency_id": _ANSWERS, "concurrency_limit": together}
    growing = [
        box.submit(handlers.ask, [box, clip, made["frames"], language, *wishes, visit], [chat, box, clip, stop],
                   **answering),
        made["again"].click(handlers.again, [language, *wishes, visit], [chat, stop], **answering),
        chat.edit(handlers.edited, [language, *wishes, visit], [chat, stop], **answering),
    ]  # fmt: skip
    ending = {**hidden, "cancels": growing, "queue": False}
    to_the_box = {"js": "() => document.querySelector('#box textarea').focus()", **hidden}
    stop.click(None, **to_the_box)  # a button that is disabled under the keyboard loses it
    stopped = stop.click(handlers.stopped, [language, visit], [chat, stop], **ending)
    cleared = gr.on([made["clear"].click, chat.clear], handlers.cleared, visit, [chat, box, clip, stop], **ending)

    def relabelled(language: str, visit: Visit) -> list:
        states = {"stop": {"interactive": visit.busy}}  # a page may be greeted within its first answer
        words = [gr.update(**_words(name, language), **states.get(name, {})) for name in _WORDS]
        questions = [gr.update(value=each[2][list(LANGUAGES).index(language)]) for _, each in asks]
        return [*words, *questions, gr.update(value=messages(visit.rounds, language))]

    relabelled_ones = [*(made[name] for name in _WORDS), *(button for button, _ in asks), chat]
    language.change(relabelled, [language, visit], relabelled_ones, **hidden)
    looks = [box, clip, made["frames"], made["tiles"], made["system"], language, visit]
    changes = [each.change for each in (box, clip, made["frames"], made["tiles"], made["system"], language)]
    gr.on(changes, handlers.preview, looks, seen, trigger_mode="always_last", **hidden)
    for event in (*growing, stopped, cleared):  # not chat.change: that is each piece of an answer
        event.then(handlers.preview, looks, seen, **hidden)
    demo.load(None, js=script(), **hidden)
    demo.load(handlers.greet, None, [language, made["system"], made["tiles"], made["limit"]], **hidden)
    for button, (pictures, file, questions) in asks:

        def chosen(language: str, pictures=pictures, file=file, questions=questions) -> tuple:
            return {"text": questions[list(LANGUAGES).index(language)], "files": pictures}, file

        button.click(chosen, language, [box, clip], **hidden).then(None, **to_the_box)
