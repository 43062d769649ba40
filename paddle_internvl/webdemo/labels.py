"""What Gradio's controls are called where Gradio leaves it unsaid, or says it in the browser's language only.

In: the texts. Out: a script for the page. It holds attributes to the language that the page is in, and tells the
browser which one that is, so that screen readers name and read everything right. Knows no layout but element ids.
"""

from __future__ import annotations

import json

from paddle_internvl.webdemo.texts import LANGUAGES, text

_SLIDERS = ("frames", "temperature", "top_p", "penalty", "limit", "tiles")
# selector, attribute, name of the text
NAMES = (
    ("#language", "aria-label", "language"),
    ("#chat [role=log]", "aria-label", "chat"),
    ("#chat .top-panel button", "aria-label", "clear"),
    ("#chat .top-panel button", "title", "clear"),
    ("#chat .component [data-testid=user]", "aria-label", "attached"),
    ("#chat .component [data-testid=bot]", "aria-label", "answer"),
    ("#chat .edit-textarea", "aria-label", "box"),
    *(
        (f"#chat {row} + .message-buttons button:nth-child({place})", attribute, name)
        for row, names in (
            (".message-row:not(:has(.edit-textarea))", ("copy", "edit")),
            (".message-row:has(.edit-textarea)", ("send", "cancel")),
        )
        for place, name in enumerate(names, 1)
        for attribute in ("aria-label", "title")
    ),
    ("#box .full-container", "aria-label", "box"),
    ("#box textarea", "aria-label", "box"),
    ("#box .thumbnails", "aria-label", "attached"),
    ("#box .thumbnail-wrapper", "aria-label", "picture"),
    ("#box .delete-button", "aria-label", "remove"),
    ("#box [data-testid=upload-button]", "aria-label", "attach"),
    ("#box [data-testid=submit-button]", "aria-label", "send"),
    ("#clip button[aria-dropeffect]", "aria-label", "drop"),
    ("#clip .icon-button", "aria-label", "remove"),
    ("#clip .icon-button", "title", "remove"),
    ("#clip button[aria-dropeffect] > .wrap", "data-words", "drop"),  # `style` shows it instead of Gradio's words
    *((f"#{slider} input", "aria-label", slider) for slider in _SLIDERS),
    *((f"#{slider} .reset-button", "aria-label", "reset") for slider in _SLIDERS),
)
# The same in every language: Gradio's items of a list have no list around them, its icons repeat their buttons.
_FIXED = (("#box .thumbnail-wrapper", "role", "group"), (".example img", "alt", ""))
_SCRIPT = """() => {
    const rows = %s;
    let due = false;
    const hold = () => {
        due = false;
        const language = document.querySelector('#language input:checked')?.value;
        if (!language) return;
        document.documentElement.lang = language === 'zh' ? 'zh-CN' : language;
        for (const [selector, attribute, words] of rows)
            for (const element of document.querySelectorAll(selector))
                if (element.getAttribute(attribute) !== words[language])
                    element.setAttribute(attribute, words[language]);
    };
    const soon = () => { if (!due) { due = true; requestAnimationFrame(hold); } };
    new MutationObserver(soon).observe(document.body, {subtree: true, childList: true, characterData: true,
        attributes: true, attributeFilter: ['aria-label', 'title', 'role', 'alt', 'aria-checked']});
    soon();
}"""


def script() -> str:
    """A function in JavaScript, to be called once when the page is there."""
    rows = [
        *((selector, attribute, {each: text(name, each) for each in LANGUAGES}) for selector, attribute, name in NAMES),
        *((selector, attribute, dict.fromkeys(LANGUAGES, value)) for selector, attribute, value in _FIXED),
    ]
    return _SCRIPT % json.dumps(rows, ensure_ascii=False)
