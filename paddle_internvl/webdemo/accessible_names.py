"""Accessible names of Gradio's controls: ARIA labels, titles and alternative texts in the language of the page.

In: the texts. Out: a script for the page. Gradio leaves some controls without a name and names others in the browser's
language; its own translation (`gr.I18n`) follows the browser too, not the page's language switch. The script sets the
attributes and the page's `lang` after every change of the page.
"""

from __future__ import annotations

import json

from paddle_internvl.webdemo.comparison import SIDES
from paddle_internvl.webdemo.texts import LANGUAGES, text

_SETTINGS = ("temperature", "top_p", "penalty", "limit", "tiles")
# (selector of the slider, name in `texts`)
_SLIDERS = [
    ("#frames", "frames"),
    ("#compared_frames", "frames"),
    *((f"#{side}{name}", name) for side in ("", *(f"{side}_" for side in SIDES)) for name in _SETTINGS),
]
_CHATS, _BOXES = ":is(#chat, .compared)", ":is(#box, #question)"
# (selector, attribute, name in `texts`)
NAMES = (
    ("#language", "aria-label", "language"),
    ("#view", "aria-label", "view"),
    ("#chat [role=log]", "aria-label", "chat"),
    *((f"#{side}_chat [role=log]", "aria-label", f"answer_{side}") for side in SIDES),
    ("#chat .top-panel button", "aria-label", "clear"),
    ("#chat .top-panel button", "title", "clear"),
    ("#chat .component [data-testid=user]", "aria-label", "attached"),
    (f"{_CHATS} .component [data-testid=bot]", "aria-label", "answer"),
    ("#chat .edit-textarea", "aria-label", "box"),
    *(
        (f"{_CHATS} {row} + .message-buttons button:nth-child({place})", attribute, name)
        for row, names in (
            (".message-row:not(:has(.edit-textarea))", ("copy", "edit")),
            (".message-row:has(.edit-textarea)", ("send", "cancel")),
        )
        for place, name in enumerate(names, 1)
        for attribute in ("aria-label", "title")
    ),
    (f"{_BOXES} .full-container", "aria-label", "box"),
    (f"{_BOXES} textarea", "aria-label", "box"),
    (f"{_BOXES} .thumbnails", "aria-label", "attached"),
    (f"{_BOXES} .thumbnail-wrapper", "aria-label", "picture"),
    (f"{_BOXES} .delete-button", "aria-label", "remove"),
    (f"{_BOXES} [data-testid=upload-button]", "aria-label", "attach"),
    (f"{_BOXES} [data-testid=submit-button]", "aria-label", "send"),
    (".clip-file button[aria-dropeffect]", "aria-label", "drop"),
    (".clip-file .icon-button", "aria-label", "remove"),
    (".clip-file .icon-button", "title", "remove"),
    # `style` shows these two instead of Gradio's own text
    (".clip-file button[aria-dropeffect] > .wrap", "data-words", "drop"),
    (".toast-title", "data-words", "notice"),
    (".toast-close", "aria-label", "close"),
    *((f"{slider} input", "aria-label", name) for slider, name in _SLIDERS),
    *((f"{slider} .reset-button", "aria-label", "reset") for slider, _ in _SLIDERS),
)
# The same in every language: Gradio's list items have no list around them, its icons repeat their buttons.
_FIXED = (
    (f"{_BOXES} .thumbnail-wrapper", "role", "group"),
    ("#chat .example img", "alt", ""),
    ("#chat .example", "aria-label", ""),  # its text is its name
    ("#chat .examples", "role", "group"),
    (f"{_CHATS} .thought-group .title button", "disabled", ""),  # in another button; `style` hands its clicks to that
    (f"{_CHATS} .thought-group .title button", "aria-hidden", "true"),
)
_SCRIPT = """() => {
    const rows = %s;
    let scheduled = false;
    const setAttributes = () => {
        scheduled = false;
        const language = document.querySelector('#language input:checked')?.value;
        if (!language) return;
        document.documentElement.lang = language === 'zh' ? 'zh-CN' : language;
        for (const [selector, attribute, words] of rows)
            for (const element of document.querySelectorAll(selector))
                if (element.getAttribute(attribute) !== words[language])
                    element.setAttribute(attribute, words[language]);
    };
    const schedule = () => { if (!scheduled) { scheduled = true; requestAnimationFrame(setAttributes); } };
    new MutationObserver(schedule).observe(document.body, {subtree: true, childList: true, characterData: true,
        attributes: true, attributeFilter: ['aria-label', 'title', 'role', 'alt', 'aria-checked']});
    schedule();
}"""


def script() -> str:
    """A JavaScript function, to be called once when the page is loaded."""
    rows = [
        *(
            (selector, attribute, {language: text(name, language) for language in LANGUAGES})
            for selector, attribute, name in NAMES
        ),
        *((selector, attribute, dict.fromkeys(LANGUAGES, value)) for selector, attribute, value in _FIXED),
    ]
    return _SCRIPT % json.dumps(rows, ensure_ascii=False)
