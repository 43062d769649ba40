"""Answers to the questions of the command line, `--question`: streamed, or one JSON document.

In: a session and the command's flags. Out: answers on stdout, the picture with boxes, the exit code.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

from convert.command_line import EXIT_DIFFERENT, EXIT_OK
from paddle_internvl.cli.chat.session import Session
from paddle_internvl.cli.thinking import AnswerPrinter

if TYPE_CHECKING:
    from paddle_internvl.engine.response import Response


def ask_all(session: Session, arguments: argparse.Namespace) -> int:
    """Ask all questions in one conversation.

    Args:
        session: whose model is set, with the pictures of the first question.
        arguments: of `chat`.
    Returns:
        The exit code: EXIT_DIFFERENT if an answer is cut that had to match a format.
    """
    start, code = time.monotonic(), EXIT_OK
    constrained, pictures = arguments.schema or arguments.choice, [*session.media]
    for question in arguments.question:
        printer = AnswerPrinter(arguments.hide_thoughts)
        answer = session.ask(question, (lambda piece: None) if arguments.json else printer)
        if not arguments.json:
            printer.end()
        if constrained and answer.finish_reason != "stop":
            print("warning: the answer is cut at its limit and does not match; raise --max-new-tokens", file=sys.stderr)
            code = EXIT_DIFFERENT
    if arguments.draw:
        from paddle_internvl.cli.chat.boxes import require_boxes

        require_boxes(pictures[0].images[0], answer.text).save(arguments.draw)
    if arguments.json:
        print(json.dumps(_document(session, answer, time.monotonic() - start), ensure_ascii=False))
    elif session.first_token:
        print(session.first_token.line(), file=sys.stderr)
    return code


def _document(session: Session, answer: Response, seconds: float) -> dict:
    """The last answer, and its prompt, or the tokens that a server counted."""
    document = {"answer": answer.text, "finish_reason": answer.finish_reason}
    if answer.reasoning is not None:
        document["reasoning_content"] = answer.reasoning
    usage = {"prompt_tokens": answer.input_token_len, "completion_tokens": answer.generate_token_len}
    document |= session.model.prompt(session.messages[:-1], session.options) or {"usage": usage}
    document["seconds"] = round(seconds, 3)
    if session.first_token:
        document["timing"] = session.first_token.document()
    return document
