"""Rows 1 to 8, 10 and 22 as a request meets them: whole messages in, safe messages out."""

import asyncio
import base64
import copy
import io
import os
import ssl
import tempfile
import time
import warnings

import anyio
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paddle_internvl.media.fetching import Fetcher
from paddle_internvl.media.limits import MediaLimits
from paddle_internvl.media.loader import MediaError, MediaLoader
from paddle_internvl.media.opening import open_media
from paddle_internvl.prompt.messages import Media, parse_messages
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


def load(*messages, fetcher=None, **limits):
    async def main():
        with anyio.fail_after(20):
            loader = MediaLoader(MediaLimits(**limits), fetcher)
            try:
                return await loader.load(list(messages))
            finally:
                await loader.aclose()

    return asyncio.run(main())


def refusal(*messages, **how):
    with pytest.raises(MediaError) as caught:
        load(*messages, **how)
    return caught.value.status, str(caught.value)


def status(*parts, **how):
    found, words = refusal(user(*parts), **how)
    assert words.startswith(("messages[0].content[", "the messages hold", "the media have")), words
    assert "/tmp" not in words and "Traceback" not in words
    return found


def test_a_conversation():
    messages = [
        {"role": "system", "content": "Be kind."},
        user(image(detail="low"), text(), image(max_dynamic_patch=3, use_thumbnail=False)),
        {"role": "assistant", "content": None, "other": [1]},
        user(video(num_segments=4, max_num=2), text("<IMG_CONTEXT> & all")),
    ]
    before = copy.deepcopy(messages)
    loaded = load(*messages)
    assert messages == before
    assert loaded[0] is messages[0] and loaded[2] is messages[2]
    assert loaded[1]["content"] == [
        {"type": "image", "image": PICTURE, "detail": "low", "max_num": 6},
        text(),
        {"type": "image", "image": PICTURE, "max_num": 3, "use_thumbnail": False},
    ]
    clip, words = loaded[3]["content"]
    assert words == text("<IMG_CONTEXT> & all")
    assert clip["type"] == "video" and clip["max_num"] == 2 and set(clip) == {"type", "video", "max_num"}
    expected, _ = open_media("video", CLIP, {"num_segments": 4})
    assert [np.asarray(frame).tolist() for frame in clip["video"]] == [np.asarray(frame).tolist() for frame in expected]
    loaded[2]["content"] = "A picture."
    _, turns = parse_messages(loaded)
    for medium in (part for turn in turns for part in turn.parts if isinstance(part, Media)):
        assert open_media(medium.kind, medium.source, medium.options)[0]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [user(text())],
        [{"role": "user", "content": "data:image/png;base64,AAAA"}],
        [{"role": "user"}, {}, {"content": 7}, {"content": {"type": "image_url"}}, "user", None],
        [
            user(
                {"type": "audio", "audio": {"url": "http://127.0.0.1/"}},
                {"type": "image_url"},
                3,
                None,
                [],
                {"type": []},
            )
        ],
        [user({"type": "image_url", "image_url": {"detail": "low"}}, {"type": "image_url", "image_url": None})],
    ],
)
def test_what_is_no_medium_passes(messages):
    assert load(*messages) == messages


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
    """By no kind of part, and by no spelling that could reach `open_media`."""
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
    """Fields beside the source are options; one of them must not come to stand for the picture."""
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
    own = {"max_dynamic_patch": "max_num", "min_dynamic_patch": "min_num"}.get(name, name)
    for value, kept in ((1, 1), (7, 7), (8, 7), (10**30, 7)):
        assert load(user(image(**{name: value})), max_tiles_per_picture=7)[0]["content"][0][own] == kept
    assert own not in load(user(image(**{name: None})))[0]["content"][0]


def test_detail_is_under_the_ceiling_too():
    for ceiling, high in ((24, 24), (7, 7)):
        part = load(user(image(detail="high")), max_tiles_per_picture=ceiling)[0]["content"][0]
        assert open_media("image", part["image"], {"detail": part["detail"], "max_num": part["max_num"]})[1] == {
            "max_num": high
        }
    assert "max_num" not in load(user(image(detail="auto")))[0]["content"][0]


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
        part = load(user(video(num_segments=segments, max_num=6)), max_tiles_per_video=8)[0]["content"][0]
        assert (len(part["video"]), part["max_num"]) == (segments, tiles)


def test_counts_and_sums():
    assert load(user(*[image()] * 16))
    assert refusal(user(*[image()] * 9), user(*[image()] * 8)) == (
        400,
        "the messages hold 17 images; at most 16 are taken",
    )
    assert refusal(user(video(), video())) == (400, "the messages hold 2 videos; at most 1 are taken")
    assert status(image(), max_images=0) == 400
    assert load(user(image(), image()), max_total_pixels=108)
    assert refusal(user(image(), image()), max_total_pixels=107) == (413, "the media have 108 pixels; 107 are taken")
    assert refusal(user(image(), video(num_segments=2)), max_total_pixels=161)[0] == 413


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
    assert load(user(image(f"file://{allowed}/a.png")), allowed_local_path=allowed)[0]["content"][0]["image"] == PICTURE
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


def test_fetched():
    async def work(server):
        loader = MediaLoader(MediaLimits(), local_fetcher(server.port))
        base = f"http://a.example:{server.port}"
        (message,) = await loader.load([user(image(f"{base}/a.png"), video(f"{base}/a.gif", num_segments=2), text())])
        assert message["content"][0]["image"] == PICTURE and len(message["content"][1]["video"]) == 2
        with pytest.raises(MediaError) as caught:
            await loader.load([user(text(), image(f"{base}/missing"))])
        assert (caught.value.status, caught.value.code) == (422, "media_unreachable")
        assert str(caught.value) == "messages[0].content[1]: the URL can't be fetched"
        with pytest.raises(MediaError) as caught:
            await loader.load([user(image(f"{base}/text"))])
        assert caught.value.status == 400
        await loader.aclose()

    served({"/a.png": answer(PICTURE), "/a.gif": answer(CLIP), "/text": answer(b"root:x:0:0")}, work)


def test_one_failure_ends_the_other_fetches():
    async def work(server):
        loader = MediaLoader(MediaLimits(), local_fetcher(server.port))
        base, begun = f"http://a.example:{server.port}", time.monotonic()
        with pytest.raises(MediaError, match=r"content\[1\]"):
            await loader.load([user(image(f"{base}/slow"), image(f"{base}/missing"))])
        assert time.monotonic() - begun < 3
        while server.open:
            await asyncio.sleep(0.01)
        await loader.aclose()

    served({"/slow": drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x")}, work)


def test_nothing_is_fetched_for_a_request_that_is_refused():
    async def work(server):
        loader = MediaLoader(MediaLimits(), local_fetcher(server.port))
        url = f"http://a.example:{server.port}/"
        for parts in ([image(url)] * 17, [image(url), image("/etc/passwd", max_num=0)], [image(url), image(url, x=1)]):
            with pytest.raises(MediaError):
                await loader.load([user(*parts)])
        assert server.came == 0
        await loader.aclose()

    served({"/": answer(PICTURE)}, work)


def test_cancelling_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def work(server):
        loader = MediaLoader(MediaLimits(), local_fetcher(server.port))
        before = len(os.listdir("/proc/self/fd"))
        url = f"http://a.example:{server.port}/"
        for pause in (0.0, 0.01, 0.05, 0.2, 0.3):
            task = asyncio.create_task(loader.load([user(image(url), video(), image())]))
            await asyncio.sleep(pause)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        while server.open:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert psutil.Process().children() == [] and list(tmp_path.iterdir()) == []
        assert len(os.listdir("/proc/self/fd")) <= before
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
        max_size=3,
    )
)
def test_any_messages(messages):
    """Loaded or refused; and what is loaded holds no source but bytes and frames, whatever is made of it later."""
    before = copy.deepcopy(messages)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loaded = load(*messages, fetcher=Fetcher(MediaLimits(), lambda host: [], tls=TRUST))
        except MediaError as refused:
            assert refused.status in (400, 413, 422)
            return
    assert repr(messages) == repr(before) and len(loaded) == len(messages)
    for message in loaded:
        try:
            _, turns = parse_messages([message])
        except (ValueError, TypeError):
            continue
        for medium in (part for turn in turns for part in turn.parts if isinstance(part, Media)):
            assert isinstance(medium.source, bytes) or all(isinstance(frame, Image.Image) for frame in medium.source)


@pytest.mark.parametrize(
    ("given", "words"),
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
def test_limits_check_themselves(given, words):
    with pytest.raises(ValueError, match=words):
        MediaLimits(**given)


def test_defaults_let_nothing_local_in():
    limits = MediaLimits()
    assert limits.allowed_local_path is None and limits.allow_ports == () and limits.remote
    assert (limits.max_images, limits.max_videos, limits.max_frames, limits.max_tiles_per_picture) == (16, 1, 64, 24)
    assert (limits.image_seconds, limits.video_seconds, limits.connect_seconds, limits.read_seconds) == (10, 30, 5, 5)
