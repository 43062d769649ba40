"""A saved conversation: JSON that the server answers as the page did, and Markdown."""

import json
from dataclasses import replace

import anyio

from paddle_internvl.serve.schema import ChatRequest
from paddle_internvl.webdemo.export import to_json, to_markdown
from paddle_internvl.webdemo.session import Round
from paddle_internvl.webdemo.uploads import Receiver
from tests.webdemo.conftest import ASSETS


def conversation() -> list[Round]:
    receiver = Receiver(448)
    picture = anyio.run(receiver.picture, str(ASSETS / "shapes.png"))
    clip = replace(picture, kind="video", name="clip.gif", source=[picture.previews[0]] * 2)
    return [
        Round("What?", (picture, clip), "a circle", "stop", thoughts="hm"),
        Round("And?", ending="error", error="the request failed inside the engine"),
    ]


def test_json_is_a_request(tiny):
    body = json.loads(to_json(conversation(), "tiny"))
    request = ChatRequest.model_validate(body)
    assert body["model"] == "tiny" and [message["role"] for message in body["messages"]] == ["user", "assistant"]
    *pictures, question = body["messages"][0]["content"]
    assert question == {"type": "text", "text": "What?"} and len(pictures) == 3  # the clip's two frames
    assert body["messages"][1] == {"role": "assistant", "content": "a circle", "reasoning_content": "hm"}
    data = pictures[0]["image_url"]["url"].partition(",")
    assert data[0] == "data:image/png;base64" and request.messages


def test_markdown():
    lines = to_markdown(conversation(), "tiny", "zh").splitlines()
    assert lines[0] == "# tiny" and "## 问题" in lines and "What?" in lines and "a circle" in lines
    assert any(line.startswith("![shapes.png](data:image/jpeg;base64,") for line in lines)
    assert "> 错误: 引擎内部出错" in lines and "<details><summary>思考过程</summary>" in lines
