"""A worker among bad rows, and what is told of workers that fail."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from paddle_internvl.engine.response import Response
from paddle_internvl.scale.batch import Answerer, Job, _reason


@dataclass
class Pipe:
    """Answers questions in batches, or none of a batch that holds 'bad'. calls: their sizes."""

    calls: list = field(default_factory=list)

    def __call__(self, conversations, configs):
        texts = [messages[-1]["content"][-1]["text"] for messages in conversations]
        self.calls.append(len(texts))
        assert len(configs) == len(texts)
        if "bad" in texts:
            raise RuntimeError("a bad one is here")
        return [Response(text.upper(), config["max_new_tokens"], 1, "stop") for text, config in zip(texts, configs)]


def worker(**job) -> Answerer:
    made = object.__new__(Answerer)
    made._job, made._pipe = Job("", Path("/"), **job), Pipe()
    return made


def row(text: str, **more) -> str:
    return json.dumps({"prompt": text, **more})


def test_one_bad_row_costs_one_row_and_few_batches():
    answerer = worker(generation={"max_new_tokens": 5})
    lines = [row(text) for text in "abcdefghijklmnop"]
    lines[5], lines[9] = row("bad"), "no json"
    out = [json.loads(line) for line in answerer.answer(range(100, 116), lines)]
    assert [line["id"] for line in out] == list(range(100, 116))
    assert [line.get("text") for line in out] == [*"ABCDE", None, *"GHI", None, *"KLMNOP"]
    assert out[5]["error"] == "a bad one is here" and "no JSON" in out[9]["error"]
    assert len(answerer._pipe.calls) <= 1 + 2 * 4  # halved until it stands alone, not each by itself
    assert max(answerer._pipe.calls) == 15 and out[0]["usage"]["completion_tokens"] == 5


def test_settings_of_a_row_are_stronger():
    answerer = worker(generation={"max_new_tokens": 5})
    out = answerer({"number": [0], "line": [row("a", generation={"max_new_tokens": 3})]})["answer"]
    assert json.loads(out[0])["usage"]["completion_tokens"] == 3
    assert answerer.answer([], []) == [] and answerer.answer([0], ["{}"]) != []


def test_reasons_are_the_last_line_of_a_traceback():
    text = "The actor died:\n  File x, line 3\n    y()\nValueError: no such checkpoint\n\n"
    assert _reason(Exception(text)) == "ValueError: no such checkpoint"
    assert _reason(KeyError()) == "KeyError" and len(_reason(Exception("x" * 10**6))) < 1000
