"""A batch worker among invalid and failing rows."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from paddle_internvl.engine.response import Response
from paddle_internvl.scale.batch import BatchWorker, Job


@dataclass
class Pipe:
    """A pipeline that fails at batches with the question 'bad'. calls: sizes of the batches."""

    calls: list = field(default_factory=list)

    def __call__(self, conversations, configs):
        texts = [dialogue.turns[-1].parts[-1] for dialogue in conversations]
        self.calls.append(len(texts))
        assert len(configs) == len(texts)
        if "bad" in texts:
            raise RuntimeError("a bad one is here")
        return [Response(text.upper(), config["max_new_tokens"], 1, "stop") for text, config in zip(texts, configs)]


JOB = Job("", Path("/"), generation={"max_new_tokens": 5})


def row(text: str, **more) -> bytes:
    return json.dumps({"prompt": text, **more}).encode()


def test_one_bad_row_costs_one_row_and_few_batches():
    pipe = Pipe()
    lines = [row(text) for text in "abcdefghijklmnop"]
    lines[5], lines[9] = row("bad"), b"no json"
    out = [json.loads(line) for line in BatchWorker(JOB, pipe).answer(range(100, 116), lines)]
    assert [line["id"] for line in out] == list(range(100, 116))
    assert [line.get("text") for line in out] == [*"ABCDE", None, *"GHI", None, *"KLMNOP"]
    assert out[5]["error"] == "a bad one is here" and "no JSON" in out[9]["error"]
    assert len(pipe.calls) <= 1 + 2 * 4  # halves, not each row by itself
    assert max(pipe.calls) == 15 and out[0]["usage"]["completion_tokens"] == 5


def test_settings_of_a_row_override_those_of_the_job():
    worker = BatchWorker(JOB, Pipe())
    out = worker({"number": [0], "line": [row("a", generation={"max_new_tokens": 3})]})["answer"]
    assert json.loads(out[0])["usage"]["completion_tokens"] == 3
    assert worker.answer([], []) == [] and worker.answer([0], [b"{}"]) != []
