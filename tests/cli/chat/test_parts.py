"""Parts of the chat: typed paths, Markdown, half blocks, the model in a thread, the model behind a URL."""

import argparse
import io
import json

import httpx
import pytest
from PIL import Image
from rich.console import Console

from paddle_internvl.cli.chat.boxes import half_blocks
from paddle_internvl.cli.chat.local import LocalModel, progress_line
from paddle_internvl.cli.chat.medium import dragged, open_medium, sources
from paddle_internvl.cli.chat.remote import RemoteModel
from paddle_internvl.cli.chat.renderer import MarkdownStream, markdown
from paddle_internvl.cli.chat.session import Session
from paddle_internvl.engine.stats import PromptProgress
from paddle_internvl.evaluation.chat_endpoint import ChatEndpoint
from tests.random_checkpoints import ROOT

CHECKPOINT, PICTURE = ROOT / "demo/checkpoints/internvl-tiny", ROOT / "demo/assets/shapes.png"
OFF = {"quantize_head": False, "int8_activations": False}


def test_typed_paths(tmp_path):
    file = tmp_path / "a b.png"
    file.touch()
    escaped, url = str(file).replace(" ", "\\ "), file.as_uri()
    for text in (str(file), f'"{file}"', f"'{file}' ", escaped, url):
        assert sources(text) == [str(file)], text
    assert sources(f"'{file}' {escaped}") == [str(file)] * 2
    assert sources("nowhere at all.png") == ["nowhere at all.png"] and sources("what's.png") == ["what's.png"]
    assert sources("https://x.org/a b.png") == ["https://x.org/a b.png"] and sources(" ") == []
    assert dragged(f"'{file}'") == [("image", str(file))]
    assert dragged(f"'{file}' is what?") == dragged("/image a.png") == dragged("'quoted' words") == []


def rendered(renderable, **options) -> str:
    console = Console(width=40, color_system=None, record=True, file=io.StringIO(), **options)
    console.print(renderable)
    return console.export_text()


def test_markdown_keeps_lines_and_html():
    shown = rendered(markdown("first line\nsecond *line*\n\n<b>x</b> `a_b` 2 * 3"))
    assert [line.strip() for line in shown.splitlines()] == ["first line", "second line", "", "<b>x</b> a_b 2 * 3"]


def test_a_long_answer_is_printed_once(tmp_path):
    with open(tmp_path / "out", "w+") as file:
        console = Console(file=file, force_terminal=True, width=40, height=10, color_system=None)
        stream, text = MarkdownStream(console), ""
        for number in range(30):
            text += f"line {number}.\n\n"
            stream._drawn = 0.0
            stream.update(text)
        stream.end(text)
        file.seek(0)
        shown = file.read()
    assert all(f"line {number}.\n" in shown for number in range(30))
    assert shown.count("line 0.\n") < 8 and shown.rindex("line 29.") > shown.rindex("line 28.")


def test_half_blocks_have_two_pixels_each():
    picture = Image.new("RGB", (2, 4))
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 8, 7)]
    for row, color in enumerate(colors):
        picture.paste(color, (0, row, 2, row + 1))
    cells = [s for s in half_blocks(picture, 2, 2).segments if s.text == "▀"]
    seen = [tuple(part.get_truecolor()) for s in cells[::2] for part in (s.style.color, s.style.bgcolor)]
    assert seen == colors


def test_progress():
    assert progress_line(PromptProgress(7, 2, 500, 0)) == "seeing tile 3 of 7"
    assert progress_line(PromptProgress(7, 7, 1840, 736)) == "prefill 40 % of 1,840 tokens"


@pytest.fixture(scope="module")
def local():
    flags = argparse.Namespace(dtype=None, device="cpu", tp=1, max_new_tokens=None, quantization=None, **OFF)
    model = LocalModel(CHECKPOINT, None, flags)
    model.load_in_background(on_error=lambda error: None)
    yield model
    model._engine.close()


def test_the_model_of_a_thread_answers_as_any(local):
    session = Session({"max_new_tokens": 12}, 8)
    session.model = local
    medium = session.add("image", str(PICTURE))
    assert local.cost(medium, {}) == "1 tile · 49 tokens"
    answers = [session.ask(question).text for question in ("How many objects are there?", "What shape is red?")]
    expected = []
    for question in ("How many objects are there?", "What shape is red?"):
        content = [{"type": "image", "image": str(PICTURE)}] if not expected else []
        expected.append({"role": "user", "content": [*content, {"type": "text", "text": question}]})
        expected.append(local.model.chat_messages(expected, {"max_new_tokens": 12}).message)
    assert answers == [message["content"] for message in expected[1::2]]
    assert local.count(session.messages[:-1], {}).endswith("49 of them from 1 tile") and local.status() == ""


def test_a_folder_that_fails_to_load_is_reported(tmp_path):
    errors = []
    flags = argparse.Namespace(dtype="int3", device="cpu", tp=1, max_new_tokens=None, quantization=None, **OFF)
    model = LocalModel(CHECKPOINT, None, flags)
    model.load_in_background(on_error=errors.append)
    with pytest.raises(ValueError, match="int3"):
        model.wait()
    assert errors == [model.error]


def test_a_server_s_stream():
    bodies = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "m"}]})
        bodies.append(json.loads(request.content))
        events = [
            {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
            {"choices": [{"delta": {"content": "a "}}]},
            {"choices": [{"delta": {"content": "dog"}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
        ]
        lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        return httpx.Response(200, text=lines)

    session = Session({"max_new_tokens": 5, "temperature": 0.0, "top_k": 50, "seed": None}, 8, system="Hi.", max_num=2)
    session.model = RemoteModel("http://host:1")
    session.model._endpoint = ChatEndpoint("http://host:1", transport=httpx.MockTransport(handler))
    session.media.append(open_medium("image", str(PICTURE), 8))
    answer = session.ask("What?")
    assert (answer.text, answer.generate_token_len, answer.input_token_len, answer.finish_reason) == (
        "a dog", 3, 7, "stop",
    )  # fmt: skip
    (body,) = bodies
    assert {key: body.get(key) for key in ("model", "stream", "max_tokens", "temperature", "top_k", "seed")} == {
        "model": "m", "stream": True, "max_tokens": 5, "temperature": 0.0, "top_k": None, "seed": None,
    }  # fmt: skip
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Hi."} and user["content"][1] == {"type": "text", "text": "What?"}
    image = user["content"][0]["image_url"]
    assert image["url"].startswith("data:image/png;base64,") and image["max_dynamic_patch"] == 2
