"""Rows 1 to 8, 10 and 22 for whole requests: a dialogue of URLs in, a dialogue of checked media out."""

import asyncio
import base64
import io
import ssl
import tempfile
import warnings

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paddle_internvl.media import clip_decoder
from paddle_internvl.media.errors import MediaError
from paddle_internvl.media.fetcher import Fetcher
from paddle_internvl.media.limits import MediaLimits
from paddle_internvl.media.loader import MediaLoader
from paddle_internvl.media.opening import open_media
from paddle_internvl.prompt.messages import parse_messages
from tests.media.hostile import answer, drip, serving


def encoded(form="PNG", size=(9, 6), **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, form, **options)
    return buffer.getvalue()


PICTURE = encoded()
TRUST = ssl.create_default_context()
CLIP = encoded("GIF", save_all=True, append_images=[Image.new("RGB", (9, 6), (0, 0, 20 * k)) for k in range(11)])


def data_url(data, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def image(url=None, **options):
    return {"type": "image_url", "image_url": {"url": data_url(PICTURE) if url is None else url, **options}}


def video(url=None, **options):
    return {"type": "video_url", "video_url": {"url": data_url(CLIP, "image/gif") if url is None else url, **options}}


def text(words="What is this?"):
    return {"type": "text", "text": words}


def user(*parts):
    return {"role": "user", "content": list(parts)}


def load(*parts, fetcher=None, **limits):
    """The loaded dialogue of one message with these parts."""

    async def main():
        with anyio.fail_after(20):
            loader = MediaLoader(MediaLimits(**limits), fetcher or Fetcher(MediaLimits(**limits), tls=TRUST))
            try:
                return await loader.load(parse_messages([user(*parts)]))
            finally:
                await loader.aclose()

    return asyncio.run(main())


def refusal(*parts, **options):
    with pytest.raises(MediaError) as caught:
        load(*parts, **options)
    return caught.value.status, str(caught.value)


def status(*parts, **options):
    status, message = refusal(*parts, **options)
    assert message.startswith(("messages[0].content[", "the messages hold", "the media have")), message
    assert "/tmp" not in message and "Traceback" not in message
    return status


def test_a_conversation():
    dialogue = parse_messages([
        {"role": "system", "content": "Be kind."},
        user(image(detail="low"), text(), image(max_dynamic_patch=3, use_thumbnail=False)),
        {"role": "assistant", "content": "A picture."},
        user(video(num_segments=4, max_num=2), text("<IMG_CONTEXT> & all")),
    ])  # fmt: skip
    loader = MediaLoader(MediaLimits())
    loaded = asyncio.run(loader.load(dialogue))
    assert loaded.substitute_media(dialogue.media) == dialogue  # texts, roles and places are as before
    first, second, clip = loaded.media
    assert (first.source, first.options) == (PICTURE, {"max_num": 6})
    assert (second.source, second.options) == (PICTURE, {"max_num": 3, "use_thumbnail": False})
    expected, _ = open_media("video", CLIP, {"num_segments": 4})
    assert [np.asarray(frame).tolist() for frame in clip.source] == [np.asarray(frame).tolist() for frame in expected]
    assert clip.options == {"max_num": 2}
    for medium in loaded.media:
        assert open_media(medium.kind, medium.source, medium.options)[0]


def test_texts_pass():
    assert load(text("data:image/png;base64,AAAA")) == parse_messages([user(text("data:image/png;base64,AAAA"))])


SOURCES = [
    "/etc/passwd",
    "etc/passwd",
    "",
    "C:\\a.png",
    "file:///etc/passwd",
    "ftp://a.example/",
    "javascript:1",
    "data:,x",
]
SOURCES += [
    "~/a.png",
    "//a.example/a.png",
    "\\\\host\\a.png",
    "blob:x",
    "file:etc/passwd",
    "\0",
    "httpx://a/",
    " http://a.example/",
]


@pytest.mark.parametrize("source", SOURCES)
def test_no_path_gets_through(source, monkeypatch):
    """By no kind of part and no spelling that `open_media` would open."""
    monkeypatch.chdir("/")
    for kind in ("image_url", "image", "image_data", "video_url", "video", "video_data"):
        assert status({"type": kind, kind: source}) == 400
        inner = "data" if kind.endswith("data") else "url"
        if kind not in ("image", "video"):
            assert status({"type": kind, kind: {inner: source}}) == 400


def test_sources_that_are_no_text():
    for source in (["a"], {"b": 1}, 7, True, [1, 2], PICTURE, Image.new("RGB", (2, 2))):
        assert status({"type": "image", "image": source}) == 400
        assert status({"type": "video", "video": source}) == 400


@pytest.mark.parametrize("extra", ["image", "video", "type", "url", "data", "image_data", "anything"])
def test_options_can_not_take_a_sources_place(extra):
    """Fields beside the source are options; none of them may become the source."""
    path = "video" if extra == "type" else "/etc/passwd"
    assert status({"type": "image_url", "image_url": {"data": 1, "url": data_url(PICTURE), extra: path}}) == 400
    if extra != "type":
        assert status({**image(), extra: path}) == 400
        assert status({**video(), extra: path}) == 400


NOT_COUNTS = [0, -1, 1.5, "6", True, [], {}, float("nan"), float("inf"), -(10**30)]


@pytest.mark.parametrize("name", ["min_num", "max_num", "max_dynamic_patch", "min_dynamic_patch"])
def test_tiles_are_whole_numbers_up_to_a_ceiling(name):
    for value in NOT_COUNTS:
        assert status(image(**{name: value})) == 400
    option = {"max_dynamic_patch": "max_num", "min_dynamic_patch": "min_num"}.get(name, name)
    for value, lowered in ((1, 1), (7, 7), (8, 7), (10**30, 7)):
        (medium,) = load(image(**{name: value}), max_tiles_per_picture=7).media
        assert medium.options == {option: lowered}
    assert load(image(**{name: None})).media[0].options == {}


def test_detail_is_under_the_ceiling_too():
    for limit, high in ((24, 24), (7, 7)):
        assert load(image(detail="high"), max_tiles_per_picture=limit).media[0].options == {"max_num": high}
    assert load(image(detail="auto")).media[0].options == {}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("num_segments", [*NOT_COUNTS, 65, 10**30]),
        ("num_frames", [*NOT_COUNTS, 65, 10**30]),
        ("fps", [0, -1, "1", True, [], float("nan"), float("inf"), 10**400, -0.0]),
        (
            "bound",
            [
                1,
                [1],
                [1, 2, 3],
                [2, 1],
                [1, 1],
                [-1, 1],
                [0, float("inf")],
                [float("nan"), 1],
                ["0", "1"],
                [0, 10**400],
            ],
        ),
        ("detail", ["huge", 1, [], {}, ""]),
        ("use_thumbnail", [0, 1, "true", []]),
    ],
)
def test_options_of_clips(name, values):
    for value in values:
        assert status(video(**{name: value})) == 400
    assert status(image(num_segments=1)) == 400


def test_tiles_of_all_frames_are_under_a_ceiling():
    for segments, tiles in ((1, 6), (4, 2), (8, 1)):
        (clip,) = load(video(num_segments=segments, max_num=6), max_tiles_per_video=8).media
        assert (len(clip.source), clip.options) == (segments, {"max_num": tiles})


def test_counts_and_sums():
    assert len(load(*[image()] * 16).media) == 16
    assert refusal(*[image()] * 17) == (400, "the messages hold 17 images; at most 16 are taken")
    assert refusal(video(), video()) == (400, "the messages hold 2 videos; at most 1 are taken")
    assert status(image(), max_images=0) == 400
    assert load(image(), image(), max_total_pixels=108)
    assert refusal(image(), image(), max_total_pixels=107) == (413, "the media have 108 pixels; 107 are taken")
    assert refusal(image(), video(num_segments=2), max_total_pixels=161)[0] == 413


def test_broken_media():
    for data in (b"", b"GIF89a", PICTURE[:40], b"garbage" * 100):
        assert status(text(), image(data_url(data))) == 400
        assert status(text(), video(data_url(data, "video/mp4"))) == 400
    assert status(image("data:image/png;base64,!!!!")) == 400
    assert status(image(data_url(PICTURE)), max_image_bytes=len(PICTURE) - 1) == 413
    assert status(video(), max_video_bytes=len(CLIP) - 1) == 413
    assert status(image(data_url(encoded(size=(300, 300)))), max_image_pixels=89999) == 413
    assert status(image(data_url(encoded("TIFF")))) == 400


def test_files_below_a_folder(tmp_path):
    (tmp_path / "open").mkdir()
    for file in ("open/a.png", "secret.png"):
        (tmp_path / file).write_bytes(PICTURE)
    allowed = tmp_path / "open"
    assert load(image(f"file://{allowed}/a.png"), allowed_local_path=allowed).media[0].source == PICTURE
    assert status(image(f"file://{allowed}/../secret.png"), allowed_local_path=allowed) == 400
    assert status(image(f"{allowed}/a.png"), allowed_local_path=allowed) == 400
    assert status(image(f"file://{allowed}/a.png")) == 400


def local_fetcher(port, **limits):
    return Fetcher(MediaLimits(allow_ports=(port,), **limits), lambda host: ["127.0.0.1"], lambda address: True)


def served(answers, work):
    async def main():
        async with serving(answers) as server:
            with anyio.fail_after(20):
                return await work(server)

    return asyncio.run(main())


def dialogue(*parts):
    return parse_messages([user(*parts)])


def test_fetched():
    async def work(server):
        loader = MediaLoader(MediaLimits(), local_fetcher(server.port))
        base = f"http://a.example:{server.port}"
        loaded = await loader.load(dialogue(image(f"{base}/a.png"), video(f"{base}/a.gif", num_segments=2), text()))
        picture, clip = loaded.media
        assert picture.source == PICTURE and len(clip.source) == 2
        with pytest.raises(MediaError) as caught:
            await loader.load(dialogue(text(), image(f"{base}/missing")))
        assert (caught.value.status, caught.value.code) == (422, "media_unreachable")
        assert str(caught.value) == "messages[0].content[1]: the URL can't be fetched"
        with pytest.raises(MediaError) as caught:
            await loader.load(dialogue(image(f"{base}/text")))
        assert caught.value.status == 400
        await loader.aclose()

    served({"/a.png": answer(PICTURE), "/a.gif": answer(CLIP), "/text": answer(b"root:x:0:0")}, work)


def test_one_failure_cancels_the_other_fetches():
    """Well before their timeout, which is longer than the test's."""

    async def work(server):
        loader = MediaLoader(MediaLimits(image_seconds=100.0), local_fetcher(server.port))
        base = f"http://a.example:{server.port}"
        with pytest.raises(MediaError, match=r"content\[1\]"):
            await loader.load(dialogue(image(f"{base}/slow"), image(f"{base}/missing")))
        while server.open:
            await asyncio.sleep(0.01)
        await loader.aclose()

    served({"/slow": drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x")}, work)


def test_bytes_of_all_requests_have_a_limit(tmp_path):
    """Of fetched and local media together; 429 above it. The end of a request, or its failure, releases its bytes."""

    async def work(server):
        limits = MediaLimits(
            allow_ports=(server.port,), max_pending_bytes=3 * len(PICTURE), allowed_local_path=tmp_path
        )
        loader = MediaLoader(limits, local_fetcher(server.port))
        (tmp_path / "b.png").write_bytes(PICTURE)
        fetched, opened = image(f"http://a.example:{server.port}/a.png"), image(f"file://{tmp_path}/b.png")
        async with loader.loaded(dialogue(fetched, opened)):
            for parts in ([fetched, fetched], [opened, fetched], [image(f"http://a.example:{server.port}/endless")]):
                with pytest.raises(MediaError, match=r"^messages\[0\].content\[.\]: too many bytes of media") as caught:
                    await loader.load(dialogue(*parts))
                assert (caught.value.status, caught.value.code) == (429, "media_busy")
            await loader.load(dialogue(fetched))
        await loader.load(dialogue(*[fetched] * 3))
        await loader.aclose()

    endless = drip(b"HTTP/1.1 200 OK\r\n\r\n", PICTURE, 0)
    served({"/a.png": answer(PICTURE), "/endless": endless}, work)


def test_a_refused_request_fetches_nothing():
    async def work(server):
        loader = MediaLoader(MediaLimits(), local_fetcher(server.port))
        url = f"http://a.example:{server.port}/"
        for parts in ([image(url)] * 17, [image(url), image("/etc/passwd", max_num=0)], [image(url), image(url, x=1)]):
            with pytest.raises(MediaError):
                await loader.load(dialogue(*parts))
        assert server.requests == 0
        await loader.aclose()

    served({"/": answer(PICTURE)}, work)


def test_cancelling_leaves_nothing(tmp_path, monkeypatch):
    """At the start, while a picture is fetched, and while a clip is decoded."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    processes = []
    open_process = clip_decoder.anyio.open_process

    async def recorded(*arguments, **options):
        processes.append(await open_process(*arguments, **options))
        return processes[-1]

    monkeypatch.setattr(clip_decoder.anyio, "open_process", recorded)

    async def work(server):
        loader = MediaLoader(MediaLimits(), local_fetcher(server.port))
        url = f"http://a.example:{server.port}/"
        stages = (lambda: True, image(url)), (lambda: server.open, image(url)), (lambda: processes, image())
        for stage, first in stages:
            task = asyncio.create_task(loader.load(dialogue(first, video(), image())))
            while not stage():
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while server.open:
                await asyncio.sleep(0.001)
        assert processes and all(process.returncode is not None for process in processes)
        assert list(tmp_path.iterdir()) == []
        await loader.aclose()

    served({"/": drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x")}, work)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["text", "image_url", "url"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "url", "x"]) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
URLS = st.one_of(
    st.sampled_from(
        [data_url(PICTURE), data_url(PICTURE[:50]), "/etc/passwd", "http://127.0.0.1/", "file:///etc/passwd"]
    ),
    st.binary(max_size=40).map(data_url),
    st.text(max_size=20),
    JSON,
)
OPTIONS = st.dictionaries(
    st.sampled_from(
        ["max_num", "min_num", "detail", "fps", "bound", "num_segments", "use_thumbnail", "image", "type", "url"]
    ),
    JSON,
    max_size=2,
)
KINDS = st.sampled_from(["image_url", "image", "image_data", "video_url", "video", "text"])
PARTS = st.one_of(
    st.tuples(KINDS, URLS, OPTIONS).map(lambda drawn: {"type": drawn[0], drawn[0]: {"url": drawn[1], **drawn[2]}}),
    st.tuples(KINDS, URLS, OPTIONS).map(lambda drawn: {**drawn[2], "type": drawn[0], drawn[0]: drawn[1]}),
    JSON,
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(JSON, st.fixed_dictionaries({"role": st.just("user"), "content": st.lists(PARTS, max_size=3)})),
        max_size=2,
    )
)
def test_any_messages(messages):
    """Parsed and loaded, or refused; loaded media hold no source but bytes and frames."""

    async def main(dialogue):
        loader = MediaLoader(MediaLimits(), Fetcher(MediaLimits(), lambda host: [], tls=TRUST))
        try:
            return await loader.load(dialogue)
        finally:
            await loader.aclose()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dialogue = parse_messages(messages)
        except ValueError:
            return
        try:
            loaded = asyncio.run(main(dialogue))
        except MediaError as refused:
            assert refused.status in (400, 413, 422)
            return
    assert len(loaded.media) == len(dialogue.media)
    for medium in loaded.media:
        assert isinstance(medium.source, bytes) or all(isinstance(frame, Image.Image) for frame in medium.source)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_images": -1}, "max_images=-1 is below 0"),
        ({"max_images": 1.5}, "max_images=1.5 is no number"),
        ({"max_images": True}, "max_images=True is no number"),
        ({"image_seconds": float("nan")}, "image_seconds=nan is no number"),
        ({"image_seconds": 0}, "image_seconds=0 is below"),
        ({"remote": "no"}, "remote='no' is no switch"),
        ({"allow_ports": ("80",)}, "allow_ports='80' is no number"),
        ({"allowed_domains": ["http://a.example/"]}, "is no host like"),
        ({"allowed_local_path": "/no/such/folder"}, "allowed_local_path=/no/such/folder is no folder"),
    ],
)
def test_invalid_limits(arguments, message):
    with pytest.raises(ValueError, match=message):
        MediaLimits(**arguments)


def test_defaults_let_nothing_local_in():
    limits = MediaLimits()
    assert limits.allowed_local_path is None and limits.allow_ports == () and limits.remote
    assert (limits.max_images, limits.max_videos, limits.max_frames, limits.max_tiles_per_picture) == (16, 1, 64, 24)
    assert (limits.image_seconds, limits.video_seconds, limits.connect_seconds, limits.read_seconds) == (10, 30, 5, 5)
