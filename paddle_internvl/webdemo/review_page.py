"""The page of a manual review: a flagged sample, its reasons, and keys to accept, reject, undo and go on.

In: a `ReviewQueue`. Out: `gr.Blocks`. The page sends the id of the sample that it shows with every decision, so that a
key that is pressed too early never decides a sample that was not shown. Pages hold no state but that id.
"""

from __future__ import annotations

import json

import gradio as gr

from paddle_internvl.curation.review import ReviewQueue
from paddle_internvl.webdemo import event_stream
from paddle_internvl.webdemo.accessible_names import script
from paddle_internvl.webdemo.display import problem
from paddle_internvl.webdemo.review_display import progress_html, sample_html
from paddle_internvl.webdemo.style import CSS
from paddle_internvl.webdemo.texts import LANGUAGES, preferred_language, text

_KEYS = {"accept": "a", "reject": "r", "undo": "u", "next": "n"}
_CSS = """
#sample dt { font-weight: 600; margin-top: 8px; }
#sample dd { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; max-width: 100ch; }
#sample table { margin-bottom: 8px; }
#sample table :is(th, td) { text-align: start; padding: 2px 8px !important; overflow-wrap: anywhere; }
#sample .figures img { max-height: 60vh; }
#progress progress { width: 100%; accent-color: var(--color-accent); }
#language { align-self: stretch; }
#actions { position: sticky; bottom: 0; padding: 8px 0; background: var(--body-background-fill); z-index: 1; }
"""
# A key that is held down counts once; in the box of the name it is a letter. The page's address keeps the name.
_SHORTCUTS = """() => {
    const keys = %s;
    document.addEventListener('keydown', event => {
        const writing = event.target.closest('#reviewer') !== null;
        if (writing && event.key === 'Enter') event.target.blur();
        if (writing || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
        const action = keys[event.key.toLowerCase()];
        if (action) { event.preventDefault(); document.getElementById(action).click(); }
    });
    document.addEventListener('change', event => {
        if (event.target.closest('#reviewer') === null) return;
        const address = new URL(window.location);
        address.searchParams.set('reviewer', event.target.value);
        window.history.replaceState(null, '', address);
    });
}"""


def build_review(queue: ReviewQueue, reviewer: str = "") -> gr.Blocks:
    """Build the page of a review, not yet launched.

    Args:
        queue: of the samples.
        reviewer: name in the box at first; the parameter `reviewer` of the page's address overrides it.
    """
    with gr.Blocks(title="InternVL review", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(f"<style>{CSS}{_CSS}</style>", elem_id="style")
        with gr.Row():
            title = gr.Markdown(_title("en"), elem_id="title")
            name = gr.Textbox(**_name("en"), max_length=100, elem_id="reviewer", min_width=260, scale=0)
            language = gr.Radio([(label, key) for key, label in LANGUAGES.items()], value="en", elem_id="language",
                                label=text("language", "en"), min_width=260, scale=0)  # fmt: skip
        progress = gr.HTML(elem_id="progress")
        sample = gr.HTML(elem_id="sample")
        with gr.Row(elem_id="actions"):
            buttons = {action: gr.Button(text(action, "en"), elem_id=action) for action in _KEYS}
        shown = gr.Textbox(visible=False)
        _connect(page, queue, reviewer, [title, name, language, *buttons.values()], buttons, [progress, sample, shown])
    page.queue(max_size=64, default_concurrency_limit=4)
    return page


def _title(language: str) -> str:
    return f"# {text('review', language)}"


def _name(language: str) -> dict:
    return {"label": text("reviewer", language), "info": text("reviewer_hint", language)}


def _connect(page, queue: ReviewQueue, reviewer: str, translated: list, buttons: dict, view: list) -> None:
    """Connect events to handlers."""
    _, name, language, *_ = translated
    shown = view[-1]
    hidden = {"api_visibility": "private", "show_progress": "hidden"}

    def show(id: str | None, name: str, language: str) -> tuple:
        """Progress, the sample, and its id."""
        message = "finished" if name else "anonymous"
        content = sample_html(queue.sample(id), language) if id else f"<p>{text(message, language)}</p>"
        return progress_html(queue.progress(), language), content, id

    def on_load(request: gr.Request) -> tuple:
        language = preferred_language(request.headers.get("accept-language"))
        name = request.query_params.get("reviewer", reviewer).strip()
        return name, language, *show(queue.next(name) if name else None, name, language)

    def begin(name: str, shown: str | None, language: str) -> tuple:
        """A name was written: the first sample."""
        name = name.strip()
        return show((shown or queue.next(name)) if name else None, name, language)

    def translate(name: str, shown: str | None, language: str) -> list:
        labels = [gr.update(value=text(action, language)) for action in _KEYS]
        label = gr.update(label=text("language", language))
        return [_title(language), gr.update(**_name(language)), label, *labels, *show(shown, name, language)]

    def act(action: str, name: str, shown: str | None, language: str) -> tuple:
        """Carry a decision, an undo or 'next' out, and show the next sample."""
        name = name.strip()
        if not name:
            gr.Info(text("anonymous", language))
            return show(None, name, language)
        try:
            if action == "undo":
                undone = queue.undo(name)
                if undone is None:
                    gr.Info(text("no_undo", language))
                return show(undone or shown, name, language)
            if shown and action != "next":
                queue.decide(shown, action, name)
        except (OSError, ValueError) as error:
            message = problem(f"{text('error', language)}: {error}")
            progress, content, _ = show(shown, name, language)
            return progress, message + content, shown
        return show(queue.next(name, after=shown), name, language)

    page.load(None, js=event_stream.SCRIPT, **hidden)
    page.load(None, js=script(), **hidden)
    page.load(None, js=_SHORTCUTS % json.dumps({key: action for action, key in _KEYS.items()}), **hidden)
    page.load(on_load, None, [name, language, *view], **hidden)
    gr.on([name.submit, name.blur], begin, [name, shown, language], view, **hidden)
    language.input(translate, [name, shown, language], [*translated, *view], **hidden)
    for action, button in buttons.items():

        def on_click(name: str, shown: str | None, language: str, action=action) -> tuple:
            return act(action, name, shown, language)

        acted = button.click(on_click, [name, shown, language], view, **hidden)
        acted.then(None, js="() => window.scrollTo(0, 0)", **hidden)
