"""Row 10: hostile clips neither hang nor crash nor leave anything; valid clips give the frames of the Python API."""

import asyncio
import contextlib
import io
import json
import os
import struct
import tempfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from paddle_internvl.media import clip_decoder
from paddle_internvl.media.clip_decoder import ClipDecoder
from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.limits import MediaLimits
from paddle_internvl.media.opening import open_media
from tests.media import bad_worker
from tests.random_checkpoints import ROOT

BROKEN = (400, "the clip can't be decoded: it is broken, truncated or of a kind that is not read")
BAD_WORKER = "tests.media.bad_worker"


def decode(data, options=None, **limits):
    return asyncio.run(ClipDecoder(MediaLimits(**limits)).frames(data, options or {}))


def refusal(data, options=None, **limits):
    with pytest.raises(MediaError) as caught:
        decode(data, options, **limits)
    return caught.value.status, str(caught.value)


def bad_clip(word):
    """A clip at which `bad_worker` misbehaves."""
    return b"\0\0\0\x18ftyp" + word.encode()


def bad_refusal(word, **limits):
    with pytest.raises(MediaError) as caught:
        asyncio.run(ClipDecoder(MediaLimits(**limits), BAD_WORKER).frames(bad_clip(word), {}))
    return caught.value.status, str(caught.value)


def pictures(count, side=64):
    return [Image.new("RGB", (side, side), (6 * k % 256, 0, 99)) for k in range(count)]


def animated(form, count=40, side=64):
    buffer = io.BytesIO()
    first, *rest = pictures(count, side)
    first.save(buffer, form, save_all=True, append_images=rest, duration=100)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """container -> a clip of 40 frames, 10 per second."""
    cv2 = pytest.importorskip("cv2")
    made = {"gif": animated("GIF"), "webp": animated("WEBP"), "png": animated("PNG")}
    for name, code in (("mp4", "mp4v"), ("avi", "MJPG"), ("webm", "VP80"), ("mkv", "mp4v")):
        file = tmp_path_factory.mktemp("clips") / f"a.{name}"
        writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*code), 10.0, (64, 64))
        for picture in pictures(40):
            writer.write(np.asarray(picture))
        writer.release()
        made[name] = file.read_bytes()
    return made


def open_paths() -> list[str]:
    """The path of each open file of this process; a temporary file's is that of its folder, too."""
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed, the folder's own among them
            links.append(os.readlink(link))
    return links


def test_an_open_temporary_file_is_noticed(tmp_path):
    with tempfile.TemporaryFile():
        assert [path for path in open_paths() if path.startswith(str(tmp_path))] != []


@pytest.fixture(autouse=True)
def leaves_nothing(tmp_path, monkeypatch):
    """No process, open file or temporary file stays behind a test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    children = psutil.Process().children()
    yield
    assert [file for file in tmp_path.iterdir() if not file.name.startswith("worker.")] == []
    assert [child.cmdline() for child in psutil.Process().children() if child not in children] == []
    # The files of this test, not their number: threads that other tests left may open files meanwhile.
    assert [path for path in open_paths() if path.startswith(str(tmp_path))] == []


OPTIONS = [{}, {"num_segments": 5}, {"fps": 2.0}, {"bound": [1, 2.5], "num_segments": 3}, {"bound": (0, 1), "fps": 4}]


@pytest.mark.parametrize("container", ["gif", "webp", "png", "mp4", "avi", "webm", "mkv"])
def test_frames_are_those_of_the_python_api(filmed, container):
    for options in OPTIONS if container == "mp4" else OPTIONS[:1]:
        expected, _ = open_media("video", filmed[container], options)
        found = decode(filmed[container], options)
        assert len(found) == len(expected) > 0
        assert all(np.array_equal(a, b) for a, b in zip(found, expected))
    again, tiles = open_media("video", found, {"max_num": 2})
    assert len(again) == len(found) and tiles == {"max_num": 2}


@pytest.mark.parametrize(
    ("options", "limits", "status", "text"),
    [
        ({}, {"max_video_frames": 39}, 400, "the clip has 40 frames; 1 to 39 are taken"),
        ({"fps": 10.0}, {"max_frames": 39}, 400, "40 frames are asked for; at most 39 are taken"),
        ({}, {"max_image_side": 63}, 413, "the clip is 64x64; a side may have 63 pixels"),
        ({}, {"max_total_pixels": 32767}, 413, "8 frames of 64x64 are more than 32767 pixels; ask for fewer"),
        ({"bound": [5, 6]}, {}, 400, "bound=(5, 6) begins behind the end of the clip at 4.00 s"),
        ({"fps": 1, "num_segments": 2}, {}, 400, "num_segments=2 and fps=1 exclude each other"),
    ],
)
def test_limits(filmed, options, limits, status, text):
    assert refusal(filmed["mp4"], options, **limits) == (status, text)


def test_a_low_ceiling_lowers_the_default(filmed):
    assert len(decode(filmed["mp4"], max_frames=4)) == 4


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<?xml version='1.0'?><MPD><BaseURL>http://10.0.0.1/</BaseURL></MPD>",
        b"\xff\xd8\xff\xe0 a JPEG",
        b"%!PS-Adobe-3.0 EPSF",
        b"II*\0 a TIFF",
        b"RIFF\0\0\0\0WAVE",
    ],
)
def test_other_kinds_start_no_process(data, monkeypatch):
    monkeypatch.setattr(clip_decoder.anyio, "open_process", lambda *_, **__: pytest.fail("a process was started"))
    assert refusal(data)[0] == 400


def test_broken_clips(filmed):
    mp4 = filmed["mp4"]
    lying = bytearray(filmed["avi"])
    at = lying.index(b"avih") + 8 + 16
    lying[at : at + 4] = struct.pack("<I", 2**31 - 1)
    for data in (mp4[: len(mp4) // 2], mp4[:32] + bytes(1000), b"\0\0\0\x18ftyp" + b"x" * 5000, b"GIF89a" + bytes(99)):
        assert refusal(data) == BROKEN
    try:
        assert len(decode(bytes(lying))) == 8
    except MediaError as refused:
        assert refused.status == 400


def test_clip_that_is_slow_or_takes_all_memory():
    buffer = io.BytesIO()
    large, *rest = [Image.new("L", (6000, 6000), 9 * k) for k in range(3)]
    large.save(buffer, "PNG", save_all=True, append_images=rest, compress_level=1)
    assert refusal(buffer.getvalue(), decode_seconds=0.1) == (400, "the clip takes more than 0.1 s to decode")
    assert refusal(buffer.getvalue(), decode_memory=2**29, max_total_pixels=10**9) == BROKEN


@pytest.mark.parametrize("word", ["hangs", "hangs deaf"])
def test_decoder_that_hangs(word):
    assert bad_refusal(word, decode_seconds=0.5) == (400, "the clip takes more than 0.5 s to decode")


def worker_pids(folder):
    return [int(file.suffix[1:]) for file in folder.glob("worker.*")]


@pytest.mark.parametrize("way", ["cancelled", "cancelled by a scope"])
def test_cancelling_kills_the_decoder(tmp_path, way):
    async def main():
        task = asyncio.create_task(ClipDecoder(MediaLimits(), BAD_WORKER).frames(bad_clip("hangs deaf"), {}))
        while not worker_pids(tmp_path):
            await asyncio.sleep(0.01)
        if way == "cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(task, 0.05)

    asyncio.run(asyncio.wait_for(main(), 20))
    (pid,) = worker_pids(tmp_path)
    assert not psutil.pid_exists(pid)


def test_decoder_that_crashes():
    assert bad_refusal("crashes") == BROKEN


@pytest.mark.parametrize("word", bad_worker.OUTPUTS)
def test_decoder_with_invalid_output(word):
    assert bad_refusal(word) == BROKEN


def test_decoder_has_no_secret_in_its_environment(monkeypatch):
    monkeypatch.setenv("PADDLE_INTERNVL_API_KEYS", "sesame")
    _, text = bad_refusal("prints its environment")
    assert "PATH" in json.loads(text) and "sesame" not in text


def test_concurrent_decodes_are_limited(monkeypatch):
    processes, peak = [], 0
    open_process = clip_decoder.anyio.open_process

    async def counted(*arguments, **options):
        nonlocal peak
        processes.append(await open_process(*arguments, **options))
        peak = max(peak, sum(process.returncode is None for process in processes))
        return processes[-1]

    async def main():
        decoder = ClipDecoder(MediaLimits(concurrent_decodes=2, decode_seconds=0.3), BAD_WORKER)
        clips = [decoder.frames(bad_clip("hangs"), {}) for _ in range(4)]
        return await asyncio.gather(*clips, return_exceptions=True)

    monkeypatch.setattr(clip_decoder.anyio, "open_process", counted)
    assert all(isinstance(result, MediaError) for result in asyncio.run(main()))
    assert (len(processes), peak) == (4, 2)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_clips(filmed, data):
    clip = bytearray(filmed[data.draw(st.sampled_from(["mp4", "webm", "avi", "gif"]))])
    for _ in range(data.draw(st.integers(1, 8))):
        clip[data.draw(st.integers(0, len(clip) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert 1 <= len(decode(bytes(clip), decode_seconds=5)) <= 8
    except MediaError as refused:
        assert refused.status in (400, 413)


@pytest.mark.parametrize("full", [0, 1], ids=["clip", "frames"])
def test_a_full_temporary_folder_is_not_the_clips_fault(monkeypatch, caplog, full):
    """/dev/full fails as a file on a full disk does."""
    temporary, files = tempfile.TemporaryFile, iter(range(2))

    def make(**options):
        return open("/dev/full", "r+b", 0) if next(files) == full else temporary(**options)

    monkeypatch.setattr(tempfile, "TemporaryFile", make)
    clip = (ROOT / "demo/assets/clip.gif").read_bytes()
    assert refusal(clip) == (507, "the server has no room for the clip's frames; try again later")
    assert f"{tempfile.gettempdir()}: No space left on device" in caplog.text
    monkeypatch.undo()
    assert decode(clip)


def test_no_temporary_folder_at_all(monkeypatch, caplog):
    def missing(**_):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryFile", missing)
    assert refusal((ROOT / "demo/assets/clip.gif").read_bytes())[0] == 507
    assert "No usable temporary directory found" in caplog.text
