"""The folder of uploads: number, bytes and age of its files; uploads under odd names; foreign Host headers."""

import asyncio
from pathlib import Path

import httpx
import pytest

from paddle_internvl.webdemo.upload_folder import UploadFolder, UploadLimits
from tests.serve.running import wait_until

gr = pytest.importorskip("gradio")
http = httpx.Client(trust_env=False, timeout=30)


async def stored(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"stored"})


def upload(folder, content) -> int:
    """Status of an upload to an application behind the limits."""

    async def post() -> int:
        transport = httpx.ASGITransport(UploadLimits(stored, folder))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.post("/gradio_api/upload", content=content)).status_code

    return asyncio.run(post())


def test_a_full_folder_takes_no_uploads(tmp_path, caplog):
    folder = UploadFolder(tmp_path, max_files=2, max_bytes=100, max_upload=60)
    assert upload(folder, b"x" * 60) == 200
    assert upload(folder, b"x" * 61) == 413
    (tmp_path / "a").write_bytes(b"x" * 50)
    assert upload(folder, b"x" * 60) == 507
    assert str(tmp_path) in caplog.text
    assert upload(folder, b"x" * 50) == 200
    (tmp_path / "b").write_bytes(b"x")
    assert upload(folder, b"x") == 507


def test_an_upload_without_a_length_is_refused(tmp_path):
    async def chunks():
        yield b"x"

    assert upload(UploadFolder(tmp_path), chunks()) == 411


def test_old_files_are_removed_and_those_of_the_page_stay(tmp_path):
    for name in ("page", "upload"):
        (tmp_path / name).write_bytes(b"x")
    UploadFolder(tmp_path, max_age=3600).remove_old()
    assert {file.name for file in tmp_path.iterdir()} == {"page", "upload"}
    UploadFolder(tmp_path, max_age=-1, kept=[tmp_path / "page"]).remove_old()
    assert [file.name for file in tmp_path.iterdir()] == ["page"]


@pytest.mark.parametrize("name", [".", "..", "../x", "a.png"])
def test_uploads_under_any_name_stay_in_the_folder(opened, host, name):
    page = opened(host)
    files = UploadFolder(Path(page.folder)).files
    before = {*files()}
    answer = http.post(f"{page.url}/gradio_api/upload", files={"files": (name, name.encode() * 100)})

    def at_rest() -> bool:
        """Whether the upload is one file; an accepted one in a folder of its own, where Gradio moves it afterwards."""
        places = [file.parent.parent.name == "uploads" for file in {*files()} - before]
        return places == [answer.status_code == 200]

    wait_until(at_rest)
    (upload,) = {*files()} - before
    assert upload.resolve().is_relative_to(page.folder)


def test_foreign_hosts_are_refused_on_loopback(opened, host):
    url = opened(host).url
    assert http.get(url, headers={"host": "evil.example"}).status_code == 403
    assert http.get(url, headers={"host": f"localhost:{url.rpartition(':')[2]}"}).status_code == 200
