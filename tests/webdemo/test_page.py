"""The page as a server: files it serves, uploads, exit at SIGTERM."""

import os
import runpy
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from paddle_internvl.webdemo.upload_folder import UploadFolder
from paddle_internvl.webdemo.uploads import LIMITS
from tests.random_checkpoints import ROOT
from tests.webdemo.conftest import ASSETS, free_port

gr = pytest.importorskip("gradio")
http = httpx.Client(trust_env=False, verify=False, timeout=30)


def test_no_folder_is_exposed(opened, host):
    url = opened(host).url
    for path in (
        "/etc/passwd",
        "README.md",
        "demo/checkpoints/internvl-tiny/config.json",
        "paddle_internvl",
        "",
    ):
        for name in (path, str(ROOT / path), f"..%2f..%2f..%2f..%2f..%2f..%2f..{path}"):
            for route in ("/gradio_api/file=", "/file=", "/static/", "/assets/", "/gradio_api/stream/"):
                assert http.get(f"{url}{route}{name}").status_code >= 400, (route, name)


def test_settings_of_the_page(opened, host):
    page = opened(host)
    demo, url = page.demo, page.url
    assert demo.share is False and demo.allowed_paths == [] and not demo.analytics_enabled
    assert http.get(f"{url}/gradio_api/info").json()["named_endpoints"] == {}
    assert demo.max_file_size == LIMITS.max_video_bytes
    assert demo._queue.max_size == 64


def test_boxes_are_emptied_by_events_of_one_update(opened, host):
    """A generator that empties a box and takes the update back left the question there now and then: Gradio's page
    changes a value that is not shown yet in place."""
    config = http.get(f"{opened(host).url}/config").json()
    inputs = {
        each["id"] for each in config["components"] if each["props"].get("elem_id") in ("box", "clip", "question")
    }
    assert len(inputs) == 3
    generators = [each for each in config["dependencies"] if each["types"]["generator"]]
    assert {each["api_name"] for each in generators} == {"answer", "example", "regenerate", "edit", "ask"}
    assert not [each["api_name"] for each in generators if inputs & set(each["outputs"])]


def upload(url: str, name: str, data: bytes) -> httpx.Response:
    return http.post(f"{url}/gradio_api/upload", files={"files": (name, data)})


def test_uploads_are_deleted(opened, host):
    page = opened(host)
    folder = UploadFolder(Path(page.folder))
    kept = folder.files()
    (path,) = upload(page.url, "a.png", (ASSETS / "sign.png").read_bytes()).json()
    assert path.startswith(page.folder) and os.path.isfile(path)
    folder.remove_old()
    assert os.path.isfile(path), "it waits to be sent"
    replace(folder, max_age=-1, kept=kept).remove_old()
    assert not os.path.exists(path)


def test_large_uploads_are_refused(opened, host):
    assert upload(opened(host).url, "a.mp4", bytes(LIMITS.max_video_bytes + 1)).status_code == 413


def call(url: str, name: str, data: list, page: dict) -> str:
    """Response to a program that calls a handler with any values."""
    index = next(i for i, d in enumerate(page["dependencies"]) if d["api_name"] == name)
    index = page["dependencies"][index].get("id", index)
    body = {"data": data, "fn_index": index, "session_hash": "stranger", "event_data": None, "trigger_id": None}
    joined = http.post(f"{url}/gradio_api/queue/join", json=body)
    if joined.status_code >= 400:
        return joined.text
    text = ""
    with http.stream("GET", f"{url}/gradio_api/queue/data?session_hash=stranger") as events:
        for line in events.iter_lines():
            text += line
            if "process_completed" in line:
                return text
    return text


@pytest.mark.parametrize("path", ["/etc/passwd", str(ASSETS / "shapes.png"), "http://127.0.0.1:1/a.png"])
def test_files_that_were_not_uploaded_are_not_read(opened, host, path):
    url = opened(host).url
    page = http.get(f"{url}/config").json()
    file = {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "a.png", "mime_type": "image/png"}
    box = {"text": "What is it?", "files": [file]}
    output = call(url, "preview", [box, None, 8, 6, "", "en", None], page)
    assert "tokens" not in output and "data:image" not in output and "root:" not in output and output


def test_process_ends_at_sigterm(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "paddle_internvl.cli.main", "demo", "--server-port", str(port)]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            output = []
            for line in process.stderr:
                output.append(line)
                if f"InternVL is on http://127.0.0.1:{port}" in line:
                    break
            else:
                pytest.fail(f"it did not start: {''.join(output)}")
            assert http.get(f"http://127.0.0.1:{port}").status_code == 200
            assert [each.name for each in tmp_path.iterdir() if each.name.startswith("paddle-internvl-demo-")]
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
        finally:
            process.kill()
    assert not [each for each in tmp_path.iterdir() if each.name.startswith("paddle-internvl-demo-")]


@pytest.mark.parametrize("file", ["app.py", "app.gradio.py"])
def test_app_has_a_demo(file, tmp_path, monkeypatch):
    """As a host of Gradio's loads it: the model untouched, the temporary folder removed at exit."""
    at_exit = []
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("atexit.register", lambda *call, **options: at_exit.append((*call, options)))
    monkeypatch.setattr("paddle_internvl.serve.server.load_engine", lambda *_: pytest.fail("it loads the model"))
    assert isinstance(runpy.run_path(str(ROOT / "demo" / file), run_name="app")["demo"], gr.Blocks)
    assert [each.name.startswith("paddle-internvl-demo-") for each in tmp_path.iterdir()] == [True]
    for remove, folder, options in at_exit:
        remove(folder, **options)
    assert not list(tmp_path.iterdir())
