"""Runs of `evaluate`: one answer a row, continued after an interruption, equal to `model.chat`."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.tiny.benchmark import write_benchmark
from paddle_internvl.evaluation import evaluate, score
from paddle_internvl.evaluation.answers import read_answers
from paddle_internvl.evaluation.benchmarks import BENCHMARKS
from paddle_internvl.evaluation.completion import ChatRequestError, Completion
from paddle_internvl.evaluation.readers import read_items
from paddle_internvl.evaluation.run import AskSettings
from paddle_internvl.evaluation.run_files import RunError
from paddle_internvl.media.images import image_tiles
from paddle_internvl.prompt.thinking import THINKING_MESSAGE
from tests.serve.conftest import CHECKPOINT

ROWS = 8


class ScriptedChat:
    """A model that answers "A" to pictures of even width; it may fail or be interrupted at a number of requests."""

    model = "scripted"

    def __init__(self, fails_at=(), stops_at=None):
        self.requests, self._fails_at, self._stops_at = [], fails_at, stops_at

    def complete(self, messages, **fields):
        picture, text = messages[0]["content"]
        width = picture["image"].width
        self.requests.append((text["text"], fields, width))
        if len(self.requests) == self._stops_at:
            raise KeyboardInterrupt
        if len(self.requests) in self._fails_at:
            raise ChatRequestError("too long")
        return Completion("A" if width % 2 == 0 else "B", "length" if width == 3 else "stop", 9, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "MMStar.tsv"
    lines = ["index\timage\tquestion\tanswer\tA\tB\tcategory"]
    for index in range(ROWS):
        stream = io.BytesIO()
        Image.new("RGB", (1 + index % 4, 2)).save(stream, "PNG")
        picture = base64.b64encode(stream.getvalue()).decode()
        lines.append(f"{index}\t{picture}\twhich?\tA\teven\todd\tmath")
    file.write_text("\n".join(lines), encoding="utf-8")
    return f"MMStar={file}"


def run(chat, data, folder, **options):
    return evaluate(chat, [data], work_dir=folder, concurrency=1, **options)["MMStar"]


def files_of(folder):
    return {file.name: file.read_bytes() for file in sorted((folder / "scripted").iterdir())}


def test_a_run_writes_answers_and_scores(data, tmp_path):
    chat = ScriptedChat()
    document = run(chat, data, tmp_path)
    assert document["headline"] == 50 and document["scored"] == ROWS and document["failures"] == {}
    table = tmp_path / "scripted" / "scripted_MMStar.tsv"
    assert read_answers(table) == {str(index): "BA"[index % 2] for index in range(ROWS)}
    assert score("MMStar", data.partition("=")[2], table) == {k: v for k, v in document.items() if k != "failures"}
    text, fields, _ = chat.requests[0]
    assert text.startswith("<IMAGE_TOKEN>\nwhich?\nA. even\nB. odd\n") and fields["temperature"] == 0
    assert [width for *_, width in chat.requests] == [1, 1, 2, 2, 3, 3, 4, 4]  # rows of a picture share their prefix
    rows = [json.loads(line) for line in (tmp_path / "scripted" / "scripted_MMStar.jsonl").open()]
    assert [row["index"] for row in rows] == list(range(ROWS))
    assert [row["finish_reason"] for row in rows].count("length") == 2
    assert run(again := ScriptedChat(), data, tmp_path) == document
    assert again.requests == []


def test_thinking(data, tmp_path):
    """The model is asked for thoughts, which are part of the answer and not of the prediction."""

    class ThinkingChat(ScriptedChat):
        def complete(self, messages, **fields):
            system, *messages = messages
            assert system == {"role": "system", "content": THINKING_MESSAGE}
            completion = super().complete(messages, **fields)
            return replace(completion, text=f"<think>odd or even</think>\n{completion.text}")

    chat, settings = ThinkingChat(), AskSettings("Thinking", chain_of_thought=True)
    document = run(chat, data, tmp_path, settings=settings)
    text, fields, _ = chat.requests[0]
    assert text.endswith("\nB. odd\nPlease answer the question and put the final answer within \\boxed{}.")
    assert fields == {"temperature": 0.6, "top_p": 0.95, "seed": 0, "max_tokens": 65536}
    rows = [json.loads(line) for line in (tmp_path / "scripted" / "scripted_MMStar.jsonl").open()]
    assert rows[0]["answer"] == "<think>odd or even</think>\nB" and rows[0]["prediction"] == "B"
    assert document["headline"] == 50


def test_an_interrupted_run_is_continued(data, tmp_path):
    run(ScriptedChat(), data, tmp_path / "whole")
    for stops_at in (4, 3):
        with pytest.raises(KeyboardInterrupt):
            run(ScriptedChat(stops_at=stops_at), data, tmp_path / "parts")
    with open(tmp_path / "parts" / "scripted" / "scripted_MMStar.jsonl", "ab") as journal:
        journal.write(b'{"index": 7, "prom')  # kill -9 while a line is written
    last = ScriptedChat()
    run(last, data, tmp_path / "parts")
    assert len(last.requests) == ROWS - 3 - 2
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")


def test_failed_rows_are_reported_and_asked_again(data, tmp_path):
    document = run(ScriptedChat(fails_at=(2, 5)), data, tmp_path)
    assert set(document["failures"].values()) == {"too long"} and document["scored"] == ROWS - 2
    assert document["headline"] is None
    assert run(again := ScriptedChat(), data, tmp_path)["headline"] == 50 and len(again.requests) == 2


def test_other_settings_are_refused(data, tmp_path):
    partial = run(ScriptedChat(), data, tmp_path, limit=2)
    assert (partial["scored"], partial["expected"], partial["headline"]) == (2, ROWS, None)
    with pytest.raises(RunError, match="another max_new_tokens"):
        run(ScriptedChat(), data, tmp_path, settings=AskSettings(max_new_tokens=3))
    assert run(ScriptedChat(), data, tmp_path)["scored"] == ROWS  # --limit changes no answer


def test_faults_are_one_clear_line(data, tmp_path):
    file = tmp_path / "MMStar.tsv"
    file.write_text("index\timage\tquestion\n")
    for words, message in (
        (["MMStar"], "nowhere: no such folder; name that of the files by --data-root or"),
        ([data, data], "MMStar is named twice"),
        ([f"MMStar={file}"], "has no rows of MMStar"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(ScriptedChat(), words, data_root=tmp_path / "nowhere", work_dir=tmp_path)
    run(ScriptedChat(), data, tmp_path, load_in_4bit=True)
    with pytest.raises(RunError, match="another load_in_4bit"):
        run(ScriptedChat(), data, tmp_path)
    (tmp_path / "mine.yaml").write_text("- {name: MMStar, like: MMStar, max_num: 1}")
    with pytest.raises(RunError, match="another benchmark, load_in_4bit"):
        run(ScriptedChat(), data, tmp_path, benchmarks=tmp_path / "mine.yaml")
    file.write_text("index\timage_path\tquestion\tA\n0\tgone.png\twhich?\teven\n")
    assert run(ScriptedChat(), f"MMStar={file}", tmp_path / "new")["failures"] == {
        "0": "no such picture: " + str(file.parent / "gone.png")
    }
    with pytest.raises(ValueError, match="no answer is of a row of the data, e.g. that of index '99'"):
        score("MMStar", file, {"99": "A"})
    notes = ["1 answers are of no row of the data", "the data has no reference answers"]
    assert score("MMStar", file, {0: "A", 99: "A"})["notes"] == notes


def test_edited_data_are_refused(data, tmp_path):
    run(ScriptedChat(), data, tmp_path, limit=2)
    edited = tmp_path / "edited.tsv"
    edited.write_text(Path(data.partition("=")[2]).read_text().replace("which?", "what?", 1))
    with pytest.raises(RunError, match="row 0 was answered to another prompt"):
        run(ScriptedChat(), f"MMStar={edited}", tmp_path)


def test_predictions_of_vlmevalkit_are_reused(data, tmp_path):
    file = tmp_path / "MMStar.json"
    file.write_text(json.dumps({"0": "B", "1": "Failed to obtain answer via API.", "99": "A"}))
    chat = ScriptedChat()
    assert run(chat, data, tmp_path, reuse=file)["scored"] == ROWS and len(chat.requests) == ROWS - 1


def test_answers_are_those_of_chat(tmp_path):
    from paddlenlp.transformers import AutoModel, AutoTokenizer

    write_benchmark(tmp_path / "Tiny_DEV.tsv", per_kind=1)
    evaluate(CHECKPOINT, [f"Tiny_DEV={tmp_path / 'Tiny_DEV.tsv'}"], work_dir=tmp_path)
    folder = tmp_path / CHECKPOINT.name
    rows = [json.loads(line) for line in (folder / f"{CHECKPOINT.name}_Tiny_DEV.jsonl").open()]
    assert len(rows) == 9
    model, tokenizer = AutoModel.from_pretrained(str(CHECKPOINT)), AutoTokenizer.from_pretrained(str(CHECKPOINT))
    for row, item in zip(rows, read_items(BENCHMARKS["Tiny_DEV"], tmp_path / "Tiny_DEV.tsv")):
        tiles = [image_tiles(picture, model.config.tile_side, max_num=6) for picture in item.pictures]
        counts = [len(cut) for cut in tiles]
        answer = model.chat(
            tokenizer, np.concatenate(tiles), row["prompt"], {"max_new_tokens": 96}, num_patches_list=counts
        )
        assert row["answer"] == answer
