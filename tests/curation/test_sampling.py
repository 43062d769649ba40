"""Sampled answers and DropoutNTP pairs: upstream's prompts, seeds, continuation of a file, pictures, endpoints."""

import json
from functools import partial

import httpx
import pytest

from paddle_internvl.chat.pipeline import EngineConfig, pipeline
from paddle_internvl.cli.main import main
from paddle_internvl.curation.answering import PipelineWorker, endpoint_answers, pipeline_answers
from paddle_internvl.curation.dropout_ntp import DropoutSettings, answer_prefix, continue_without_media
from paddle_internvl.curation.prompt_messages import endpoint_messages, messages_with_media
from paddle_internvl.curation.sampling import SamplingSettings, sample_answers
from paddle_internvl.curation.sampling_prompts import INSTRUCTIONS, SHORT_ANSWERS, sampling_prompt
from paddle_internvl.evaluation.chat_endpoint import ChatEndpoint
from paddle_internvl.evaluation.completion import ChatRequestError
from paddle_internvl.evaluation.picture_marks import without_marks
from paddle_internvl.training.mixture import DataError
from paddle_internvl.training.preferences import PreferenceDataset
from tests.curation.test_answers import GOLDEN
from tests.random_checkpoints import ROOT

QUESTIONS = [
    {"id": 7, "image": "a.png", "question": "How many? Please answer Yes or No.", "answer": 3},
    {"image": ["a.png", "b.png"], "question": "<image><image>\nSame?", "answer": "no"},
    {"question": "Why?", "answer": "so"},
    {"question": "Why?", "answer": "so"},
]


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(item) + "\n" for item in QUESTIONS))
    return file


def echo(requests):
    """Answers that show the request."""
    return (f"{request.messages} {request.seed}" for request in requests)


def test_instructions_are_upstream_s():
    assert {**GOLDEN["instructions"], "direct": "{question}"} == INSTRUCTIONS and sorted(SHORT_ANSWERS) == GOLDEN[
        "short_answers"
    ]


def test_prompts():
    long = INSTRUCTIONS["en_v2"]
    assert sampling_prompt("Red?\nPlease answer Yes or No.", "en_v2", 1) == "<image>\n" + long.replace(
        "{question}", "Red?"
    )
    assert sampling_prompt("Is <image>\nred?", "en_v2", 1) == "<image>\n" + long.replace("{question}", "Is red?")
    assert sampling_prompt("<image> or <image>?", "en_v2", 2) == long.replace("{question}", "<image> or <image>?")
    assert sampling_prompt("{question} \\boxed", "en_v2", 0) == long.replace("{question}", "{question} \\boxed")
    assert sampling_prompt("Red?\nPlease answer Yes or No.", "direct", 1) == "<image>\nRed?\nPlease answer Yes or No."


def test_an_interrupted_file_is_continued(source, tmp_path):
    settings = SamplingSettings("en", num_return_sequences=3, root=tmp_path)
    whole, target = tmp_path / "whole.jsonl", tmp_path / "some.jsonl"
    assert sample_answers(source, whole, settings, echo) == {
        "questions": 4, "answers": 12, "sampled": 12, "failed": 0
    }  # fmt: skip
    data = whole.read_bytes()
    rows = [json.loads(line) for line in data.splitlines()]
    assert rows[0]["id"] == 7 and rows[0]["question_orig"] == QUESTIONS[0]["question"]
    assert all(f"{tmp_path}/{name}.png" in rows[3]["response"] for name in "ab")
    assert len({row["response"] for row in rows}) == 12  # every answer has a seed of its own
    for end in (0, 5, data.index(b"\n") + 1, data.index(b"\n", 700), len(data) // 2, len(data)):
        target.write_bytes(data[:end])
        sample_answers(source, target, settings, echo)
        assert target.read_bytes() == data
    with pytest.raises(DataError, match="whole.jsonl:1: another prompt_version"):
        sample_answers(source, whole, SamplingSettings("zh"), echo)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"question": "Why?"}, "answer are needed"),
        ({"question": "Why?", "answer": 1, "video": "a.mp4", "image": "a.png"}, "no image beside it"),
        ({"question": "Why?", "answer": 1, "image": [1]}, "a path or a list of paths"),
    ],
)
def test_bad_lines(tmp_path, item, reason):
    source = tmp_path / "questions.jsonl"
    source.write_text(json.dumps(QUESTIONS[0]) + "\n" + json.dumps(item))
    with pytest.raises(DataError, match=f"questions.jsonl:2: .*{reason}"):
        sample_answers(source, tmp_path / "out.jsonl", SamplingSettings("en"), echo)


def test_messages_of_pictures_clips_and_turns(tmp_path):
    (tmp_path / "a.png").write_bytes(b"one")
    turns = [("user", "<image>\nOne?"), ("assistant", "<image>"), ("user", "Two <image>?")]
    messages = messages_with_media(turns, {"image": ["a.png", "a.png"]}, tmp_path)
    picture = {"type": "image", "image": f"{tmp_path}/a.png"}
    assert messages[0]["content"] == [picture, {"type": "text", "text": "<IMAGE_TOKEN>\nOne?"}]
    assert messages[1]["content"] == "<image>"
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,b25l"}}
    remote = endpoint_messages(messages)
    assert remote[0]["content"] == [url, messages[0]["content"][1]] and remote[1] == messages[1]
    placed = without_marks(remote)
    assert placed[0]["content"] == [url, {"type": "text", "text": "One?"}] and placed[1] == messages[1]
    assert placed[2]["content"] == [{"type": "text", "text": "Two "}, url, {"type": "text", "text": "?"}]
    clip = messages_with_media([("user", "<video>\nWhat?")], {"video": "a.png"}, tmp_path)
    assert clip[0]["content"] == [{"type": "video", "video": f"{tmp_path}/a.png"}, {"type": "text", "text": "What?"}]
    with pytest.raises(ValueError, match="2 pictures but 1 <image> marks"):
        messages_with_media([("user", "<image>")], {"image": ["a.png", "a.png"]}, tmp_path)


def test_an_endpoint_samples_in_order_and_refused_requests_are_tried_again(source, tmp_path):
    """The endpoint refuses every second request at first."""
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"data")
    refused = set()

    def handle(request):
        if request.method == "GET":  # whether it reads marks of pictures
            return httpx.Response(404)
        body = json.loads(request.content)
        assert (body["temperature"], body["max_tokens"]) == (0.7, 5) and "top_k" not in body
        if body["seed"] % 2 and body["seed"] not in refused:
            refused.add(body["seed"])
            return httpx.Response(400, text="not this one")
        return httpx.Response(200, json={"choices": [{"message": {"content": str(body["seed"])}}]})

    chat = ChatEndpoint("http://endpoint.test", "m", transport=httpx.MockTransport(handle))
    answers = endpoint_answers(chat, {"temperature": 0.7, "max_tokens": 5, "top_k": None}, concurrency=3)
    settings = partial(SamplingSettings, "en", num_return_sequences=4, root=tmp_path)
    with pytest.raises(ChatRequestError, match="not this one"):
        sample_answers(source, tmp_path / "out.jsonl", settings(), answers)
    refused.clear()
    first = sample_answers(source, tmp_path / "out.jsonl", settings(skip_failed=True), answers)
    assert first["failed"] == len(refused) > 0 and first["answers"] == 16 - len(refused)
    second = sample_answers(source, tmp_path / "out.jsonl", settings(), answers)
    assert second == {"questions": 4, "answers": 16, "sampled": len(refused), "failed": 0}
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len({row["response"] for row in rows}) == 16


@pytest.mark.parametrize(
    ("tool", "model", "flags", "message"),
    [
        ("sample", "http://h/v1", ["--workers", "2"], "--workers is for a checkpoint"),
        ("sample", "http://h/v1", ["--max-num", "2"], "--max-num is for a checkpoint"),
        ("sample", ".", ["--concurrency", "2"], "--concurrency is for an endpoint"),
        ("sample", ".", ["--ray-address", "auto"], "--ray-address needs --workers"),
        ("dropout-ntp", "env", [], "dropout-ntp needs a checkpoint"),
    ],
)
def test_flags_of_another_model_are_refused(source, tmp_path, capsys, tool, model, flags, message):
    version = ["--prompt-version", "en"] if tool == "sample" else []
    assert main(["curate", tool, str(source), str(tmp_path / "out"), model, *version, *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "ratio", "prefix"),
    [
        ("a red circle and a blue square", 0.5, "a red circle"),
        ("one  two\nthree four", 0.5, "one"),  # upstream splits at single blanks
        ("one", 0.5, ""),
        ("图中有一个红色的圆。", 0.5, "图中有一个"),
        ("红色 circle 和 square", 0.5, "红色"),
        ("a b c d", 0.0, ""),
    ],
)
def test_the_beginning_of_an_answer(text, ratio, prefix):
    assert answer_prefix(text, ratio) == prefix


@pytest.fixture(scope="module")
def checkpoint():
    return ROOT / "demo/checkpoints/internvl-tiny"


def test_half_an_answer_is_continued_without_the_picture(checkpoint, tmp_path, capsys):
    """Greedy: with the picture the continuation is the rest of the answer, which makes no pair; without it another."""
    root = ROOT / "demo/assets"
    question, picture = "Describe the image.", "shapes.png"
    with pipeline(str(checkpoint), EngineConfig(max_batch_size=4, cache_tokens=4096)) as pipe:
        chosen = pipe((question, str(root / picture)), {"max_new_tokens": 64}).text
        item = {"id": 1, "image": picture, "question": f"<image>\n{question}", "response": chosen}
        other = {"image": picture, "question": "<image>\nWhat is red?", "chosen": f"{chosen} And more."}
        source = tmp_path / "samples.jsonl"
        source.write_text("".join(json.dumps(line) + "\n" for line in (item, other)))
        answers = pipeline_answers(PipelineWorker(pipe, {"max_new_tokens": 64}), 8)
        with_picture = DropoutSettings(load_image=True, root=root)
        counts = continue_without_media(source, tmp_path / "same.jsonl", with_picture, answers)
        assert counts["identical"] >= 1
        settings = DropoutSettings(root=root)
        counts = continue_without_media(source, tmp_path / "out.jsonl", settings, answers)
        assert counts == {"samples": 2, "pairs": 2, "made": 2, "identical": 0}
        text = pipe([[{"role": "user", "content": question}]], {"max_new_tokens": 64})[0].text
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows[0] == {
        "id": 1, "image": picture, "question": item["question"], "chosen": chosen, "rejected": rows[0]["rejected"],
        "answer_number": 0,
    }  # fmt: skip
    half = answer_prefix(chosen, 0.5)
    assert all(row["rejected"].startswith(half) and row["rejected"] != row["chosen"] for row in rows)
    assert rows[0]["rejected"] != text
    (tmp_path / "meta.json").write_text(
        json.dumps({"pairs": {"root": str(root), "annotation": "out.jsonl", "repeat_time": 1}})
    )
    pair = PreferenceDataset(tmp_path / "meta.json", checkpoint)[0]
    assert len(pair["pixel_values"]) == sum(pair["num_tiles"]) > 0
    words = ["curate", "dropout-ntp", str(source), str(tmp_path / "out.jsonl"), str(checkpoint), "--root", str(root)]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"samples": 2, "pairs": 2, "made": 0, "identical": 0}
