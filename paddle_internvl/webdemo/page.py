"""The page: its layout, and the event handler of each control.

In: an `EngineHost` and a folder of example files. Out: `gr.Blocks`. The controls are in `layout`, their event handlers
in `handlers`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import gradio as gr

from paddle_internvl.webdemo import event_stream, examples
from paddle_internvl.webdemo.accessible_names import script
from paddle_internvl.webdemo.comparison import SETTINGS, SIDES, ComparisonHandlers, ComparisonState
from paddle_internvl.webdemo.comparison_layout import place_comparison
from paddle_internvl.webdemo.display import messages
from paddle_internvl.webdemo.engine_host import EngineHost
from paddle_internvl.webdemo.handlers import Handlers
from paddle_internvl.webdemo.layout import LABELS, Controls, adapter_choices, labels, place, view_choices
from paddle_internvl.webdemo.session import SessionState
from paddle_internvl.webdemo.style import CSS
from paddle_internvl.webdemo.texts import LANGUAGES

# controls of `GenerationOptions`, in its order
_OPTIONS = ("system", "temperature", "top_p", "penalty", "limit", "tiles", "thinking", "keep_thoughts")
_PROMPT_SETTINGS = ("system", "tiles", "thinking")  # of `SETTINGS`, those that change the prompt
_QUEUE = "answers"  # Gradio queue of all questions
_SHOW_VIEW = "view => { document.body.dataset.view = view; }"  # `style` hides the other one
_DOWNLOAD = """text => {
    if (!text) return;
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], {type: 'text/plain;charset=utf-8'}));
    link.download = 'conversation.%s';
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}"""


def build(host: EngineHost, folder: Path | None = None, concurrency: int = 16, thinking: bool = False) -> gr.Blocks:
    """Build the page, not yet launched.

    Args:
        host: of the engine that answers.
        folder: of the examples' files; None: no examples.
        concurrency: questions that are answered at once; further questions queue, and the page shows their position.
        thinking: whether a page that has just been opened asks for thoughts.
    """
    found = examples.load(folder)
    with gr.Blocks(title="InternVL", analytics_enabled=False, fill_width=True) as demo:
        gr.HTML(f"<style>{CSS}</style>", elem_id="style")
        state = gr.State(SessionState())
        # The examples of a chat that is not placed are in the form that an update needs.
        shown = {
            language: gr.Chatbot(examples=examples.chat_examples(found, language), render=False).examples
            for language in LANGUAGES
        }
        controls = place(host.adapters, examples.chat_examples(found, "en"), thinking)
        place_comparison(controls, host.adapters, thinking)
        controls["saved"] = gr.Textbox(visible=False)
        _Events(demo, Handlers(host, found), controls, state, concurrency).connect(host, shown)
    demo.queue(max_size=64, default_concurrency_limit=concurrency)
    return demo


class _Events:
    """Connects events to handlers."""

    def __init__(self, demo: gr.Blocks, handlers: Handlers, controls: Controls, state: gr.State, concurrency: int):
        self._demo, self._handlers, self._controls, self._state = demo, handlers, controls, state
        self._comparison, self._compared = ComparisonHandlers(handlers), gr.State(ComparisonState())
        # No API endpoint: programs use the server.
        self._hidden = {"api_visibility": "private", "show_progress": "hidden"}
        limits = {"show_progress": "minimal", "concurrency_id": _QUEUE, "concurrency_limit": concurrency}
        self._answering = {**self._hidden, **limits}

    def connect(self, host: EngineHost, shown: dict[str, list]) -> None:
        """Connect all events.

        Args:
            host: see `build`.
            shown: language -> examples of the chat.
        """
        self._connect_answers()
        self._connect_language(host, shown)
        self._connect_files()
        self._connect_comparison()
        controls, handlers, hidden = self._controls, self._handlers, self._hidden
        for side in ("", *(f"{side}_" for side in SIDES)):
            controls[f"{side}thinking"].change(
                lambda thinking: gr.update(interactive=not thinking),
                controls[f"{side}thinking"], controls[f"{side}system"], **hidden,
            )  # fmt: skip
        strip = ([controls["language"], self._state], controls["strip"])
        controls["adapter"].change(handlers.choose_adapter, [controls["adapter"], *strip[0]], strip[1], **hidden)
        self._demo.load(None, js=event_stream.SCRIPT, **hidden)
        self._demo.load(None, js=script(), **hidden)
        loaded = [controls[name] for name in ("language", "system", "tiles", "limit")]
        self._demo.load(handlers.on_load, None, loaded, **hidden).then(handlers.strip, *strip, **hidden)

    def _connect_answers(self) -> None:
        controls, handlers, state, hidden = self._controls, self._handlers, self._state, self._hidden
        language, chat, box, clip, stop = (controls[name] for name in ("language", "chat", "box", "clip", "stop"))
        options, frames = [controls[name] for name in _OPTIONS], controls["frames"]
        answering = self._answering
        sent = box.submit(handlers.send, [box, clip, frames, language, state], [chat, box, clip], **hidden)
        answers = [
            # not once: a question that was taken is answered, though the page may not have closed the stream before
            sent.then(handlers.answer, [language, *options, state], [chat, stop], trigger_mode="multiple", **answering),
            chat.example_select(handlers.example, [frames, language, *options, state], [chat, stop], **answering),
            controls["again"].click(handlers.regenerate, [language, *options, state], [chat, stop], **answering),
            chat.edit(handlers.edit, [language, *options, state], [chat, stop], **answering),
        ]  # fmt: skip
        ending = {**hidden, "cancels": answers, "queue": False}
        for event in (stop.click, chat.example_select):  # the button is disabled, or goes
            event(None, js="() => document.querySelector('#box textarea').focus()", **hidden)
        stopped = stop.click(handlers.stop, [language, state], chat, **ending)
        cleared = gr.on([controls["clear"].click, chat.clear], handlers.clear, state, [chat, box, clip], **ending)
        for answer in answers:
            answer.then(handlers.finish, [language, state], [stop, controls["strip"]], queue=False, **hidden)
        attention = {"fn": handlers.attention, "inputs": [language, state], "outputs": chat}
        controls["attention"].click(**attention, **{**hidden, "show_progress": "minimal"})
        prompt = ("frames", "tiles", "system", "thinking", "keep_thoughts")
        question = [box, clip, *(controls[name] for name in prompt), language]
        preview = {"fn": handlers.preview, "inputs": [*question, state], "outputs": controls["preview"], **hidden}
        gr.on([control.change for control in question], trigger_mode="always_last", **preview)
        for event in (sent, *answers, stopped, cleared):  # not chat.change, which every piece of an answer triggers
            event.then(**preview)

    def _connect_language(self, host: EngineHost, shown: dict[str, list]) -> None:
        controls, handlers = self._controls, self._handlers

        def translate(language: str, state: SessionState, compared: ComparisonState) -> list:
            adapters, chats = {"choices": adapter_choices(host.adapters, language)}, (f"{side}_chat" for side in SIDES)
            further = {
                "stop": {"interactive": state.busy},  # the language may change during the first answer
                "chat": {"value": messages(state.rounds, language), "examples": shown[language]},
                "view": {"choices": view_choices(language)},
                "stop_both": {"interactive": compared.busy},
                **dict.fromkeys(("adapter", *(f"{side}_adapter" for side in SIDES)), adapters),
                **{chat: {"value": shown} for chat, shown in zip(chats, self._comparison.show(language, compared))},
            }
            updates = [gr.update(**labels(name, language), **further.get(name, {})) for name in LABELS]
            return [*updates, handlers.strip(language, state)]

        outputs = [*(controls[name] for name in LABELS), controls["strip"]]
        inputs = [controls["language"], self._state, self._compared]
        controls["language"].change(translate, inputs, outputs, **self._hidden)

    def _connect_comparison(self) -> None:
        controls, handlers, state, hidden = self._controls, self._comparison, self._compared, self._hidden
        language, question, stop = (controls[name] for name in ("language", "question", "stop_both"))
        clip = [controls["compared_clip"], controls["compared_frames"]]
        settings = [controls[f"{side}_{name}"] for side in SIDES for name in SETTINGS]
        chats, previews = ([controls[f"{side}_{name}"] for side in SIDES] for name in ("chat", "preview"))
        inputs = [question, *clip, language, *settings, state]
        answer = question.submit(handlers.ask, inputs, [*chats, stop], **self._answering)
        answer.then(lambda: gr.update(interactive=False), None, stop, queue=False, **hidden)
        stop.click(handlers.stop, [language, state], chats, **hidden, cancels=[answer], queue=False)
        stop.click(None, js="() => document.querySelector('#question textarea').focus()", **hidden)
        prompt = [control for name, control in zip(SETTINGS * len(SIDES), settings) if name in _PROMPT_SETTINGS]
        changes = [control.change for control in (question, *clip, language, *prompt)]
        gr.on(changes, handlers.preview, inputs, previews, trigger_mode="always_last", **hidden)
        controls["view"].change(None, controls["view"], js=_SHOW_VIEW, **hidden)
        loaded = [controls[f"{side}_{name}"] for side in SIDES for name in ("system", "tiles", "limit")]
        self._demo.load(handlers.on_load, None, loaded, **hidden)

    def _connect_files(self) -> None:
        controls, saved = self._controls, self._controls["saved"]
        for name, kind in (("save_json", "json"), ("save_markdown", "md")):
            text_of = partial(self._handlers.save, kind)
            written = controls[name].click(text_of, [controls["language"], self._state], saved, **self._hidden)
            written.then(None, saved, js=_DOWNLOAD % kind, **self._hidden)
