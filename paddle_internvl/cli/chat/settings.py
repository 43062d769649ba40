"""Settings that `/set` changes in a conversation: their types, and where each one lies.

In: a name and the text of a value. Out: a changed `Session`, or an error that names the setting.
"""

from __future__ import annotations

from argparse import ArgumentTypeError

from paddle_internvl.cli.argument_types import integer, number
from paddle_internvl.cli.chat.session import Session

_GENERATION = {
    "max_new_tokens": integer(1),
    "temperature": number(0),
    "top_p": number(0),
    "top_k": integer(0),
    "repetition_penalty": number(0),
    "seed": integer(0),
}


def _switch(text: str) -> bool:
    """Type of 'on' and 'off'."""
    words = {"on": True, "true": True, "off": False, "false": False}
    if text.lower() not in words:
        raise ValueError(f"{text!r} is neither on nor off")
    return words[text.lower()]


_OPTIONS = {"max_num": integer(1), "thinking": _switch}
_OTHERS = {"frames": integer(1), "markdown": _switch}  # attributes of the session
NAMES = (*_GENERATION, *_OPTIONS, *_OTHERS)


def values(session: Session) -> dict[str, object]:
    """Value of every setting."""
    return {
        **{name: session.settings.get(name) for name in _GENERATION},
        **{name: session.options.get(name) for name in _OPTIONS},
        **{name: getattr(session, name) for name in _OTHERS},
    }


def change(session: Session, name: str, text: str) -> None:
    """Change a setting.

    Args:
        session: whose setting it is.
        name: with dashes or underscores.
        text: of the value.
    Raises:
        ValueError: an unknown name, or a value that can't be.
    """
    name = name.strip("-").replace("-", "_")
    types = {**_GENERATION, **_OPTIONS, **_OTHERS}
    if name not in types:
        raise ValueError(f"{name!r} is no setting; settings: {', '.join(NAMES)}")
    try:
        value = types[name](text)
    except (ArgumentTypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None
    if name in _GENERATION:
        _change_generation(session, name, value)
    elif name in _OPTIONS:
        _require_thinking(session, name, value)
        session.options[name] = value
    else:
        setattr(session, name, value)


def _change_generation(session: Session, name: str, value) -> None:
    from paddle_internvl.generation.config import generation_config

    settings = {**session.settings, name: value}
    settings["do_sample"] = settings["temperature"] > 0
    generation_config(settings)  # refuses what can't be
    session.settings = settings


def _require_thinking(session: Session, name: str, value) -> None:
    from paddle_internvl.prompt.thinking import thinking_system_message

    if name == "thinking" and value:
        thinking_system_message(session.options.get("system"))
