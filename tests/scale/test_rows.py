"""Files of batch inference: rows of IN, lines of OUT, and how a run is continued."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_internvl.engine.response import Response
from paddle_internvl.scale import rows

FOLDER = Path("/data")
WHOLE = Response("a", 3, 7, "stop")


def sources_of(row: dict) -> list[str]:
    """Sources of a row's media."""
    dialogue, _ = rows.parse(json.dumps(row).encode(), FOLDER)
    return [medium.source for medium in dialogue.media]


@pytest.mark.parametrize(
    ("part", "sources"),
    [
        ({"type": "image_url", "image_url": {"url": "a/b.png", "max_num": 2}}, ["/data/a/b.png"]),
        ({"type": "image_url", "image_url": "b.png"}, ["/data/b.png"]),
        ({"type": "image", "image": "/elsewhere/b.png"}, ["/elsewhere/b.png"]),
        ({"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}, ["https://a.example/b.png"]),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}, ["data:image/png;base64,AA=="]),
        ({"type": "image_data", "image_data": {"data": "b.png"}}, ["/data/b.png"]),
        ({"type": "video_url", "video_url": {"url": "c.mp4", "num_frames": 4}}, ["/data/c.mp4"]),
        ({"type": "video", "video": ["1.png", "2.png"]}, [["/data/1.png", "/data/2.png"]]),
        ({"type": "text", "text": "a.png"}, []),
    ],
)
def test_paths_start_from_the_folder(part, sources):
    assert sources_of({"messages": [{"role": "user", "content": [part]}]}) == sources


def test_a_prompt_is_pictures_before_text():
    row = {"id": 3, "prompt": "What?", "images": ["a.png", {"url": "b.png", "max_num": 1}], "generation": {"top_k": 1}}
    dialogue, generation = rows.parse(json.dumps(row).encode(), FOLDER)
    (turn,) = dialogue.turns
    assert generation == {"top_k": 1} and turn.parts[-1] == "What?"
    assert [part.source for part in turn.parts[:-1]] == ["/data/a.png", "/data/b.png"]
    assert turn.parts[1].options == {"max_num": 1}
    (turn,) = rows.parse(b'{"prompt": "Hi", "images": null}', FOLDER)[0].turns
    assert turn.parts == ("Hi",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "the row is no JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"id": "\xff", "prompt": "x"}', "the row is no JSON: 'utf-8' codec can't decode byte 0xff"),
        (b'{"id": NaN, "prompt": "x"}', "the row is no JSON: NaN is no JSON"),
        (b'{"id": 1e999, "prompt": "x"}', "'id' is a text or a finite number"),
        (b'{"id": ["a"], "prompt": "x"}', "'id' is a text or a finite number"),
        (b"[]", "'messages', or with 'prompt'"),
        (b'{"question": "x"}', "'messages', or with 'prompt'"),
        (b'{"prompt": "x", "image": "a.png"}', "field 'image' is not known beside 'prompt'"),
        (b'{"messages": [], "images": []}', "field 'images' is not known beside 'messages'"),
        (b'{"prompt": 3}', "'prompt' is a text"),
        (b'{"prompt": "x", "images": "a.png"}', "'images' a list"),
        (b'{"prompt": "x", "generation": 3}', "'generation' is an object"),
    ],
)
def test_rows_that_are_none(line, message):
    with pytest.raises(ValueError, match=message):
        rows.parse(line, FOLDER)
    assert rows.name_of(line, 5) == 5


def test_a_byte_order_mark_and_any_line_ends(tmp_path):
    (tmp_path / "in").write_bytes(b'\xef\xbb\xbf{"prompt": "x"}\r\n\r\n \n{"prompt": "\xff"}')
    assert rows.read(tmp_path / "in") == [b'{"prompt": "x"}', b'{"prompt": "\xff"}']


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "image", "image_url", "url", "content", "role", "text"]), inner)
    ),
    max_leaves=12,
)


def as_line(value) -> bytes:
    return json.dumps(value).encode()


@settings(deadline=None)
@given(st.binary(max_size=20) | (json_values | json_values.map(lambda v: {"messages": v})).map(as_line))
def test_no_row_is_more_than_an_error(line):
    try:
        rows.parse(line, FOLDER)
    except ValueError:
        assert json.loads(rows.answer_line(rows.name_of(line, 5), ValueError()))["error"] == "ValueError"


def test_lines_of_answers():
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    plain = {"id": "ä", "text": "a", "finish_reason": "stop", "usage": usage}
    assert json.loads(rows.answer_line("ä", WHOLE)) == plain and "ä" in rows.answer_line("ä", WHOLE)
    more = Response("a", 3, 7, "stop", logprobs=({5: -0.5},), alternatives=(Response("b\n", 1, 7, "length"),))
    assert json.loads(rows.answer_line(1, more)) == {
        **plain, "id": 1, "alternatives": ["b\n"], "logprobs": [{"5": -0.5}],
    }  # fmt: skip
    assert rows.answer_line(1, more).count("\n") == 0
    bad = rows.answer_line(2, ValueError("one\n two"))
    assert json.loads(bad) == {"id": 2, "error": "one two"} and rows.failed(bad) and not rows.failed(json.dumps(plain))
    assert json.loads(rows.answer_line(2, KeyError())) == {"id": 2, "error": "KeyError"}


def test_half_a_surrogate_is_written_as_its_escape():
    name = rows.name_of(b'{"id": "\\ud800", "prompt": "x"}', 5)
    line = rows.answer_line(name, ValueError("no such picture: \ud800.png"))
    assert json.loads(line.encode()) == {"id": "\ud800", "error": "no such picture: \ud800.png"}


LINES = [b'{"id": "a", "prompt": "x"}', b"no json", b'{"prompt": "y"}']
SETTINGS = {"model": "m", "max_new_tokens": 5}
ANSWERS = [rows.answer_line("a", WHOLE), rows.answer_line(1, ValueError("bad")), rows.answer_line(2, WHOLE)]


def begin(file: Path, content: str) -> None:
    """OUT with some content, and its settings."""
    with rows.appending(file, LINES, SETTINGS):
        file.write_text(content)


@settings(deadline=None)
@given(cut=st.integers(0, len("\n".join(ANSWERS)) + 1))
def test_a_run_goes_on_where_it_was_torn(tmp_path_factory, cut):
    """At any end of the file: complete lines stay, an incomplete one is cut off, and the final file is the same."""
    file, whole = tmp_path_factory.mktemp("out") / "out.jsonl", "".join(f"{line}\n" for line in ANSWERS)
    begin(file, whole[:cut])
    with rows.appending(file, LINES, SETTINGS) as (out, done, failed):
        assert done == whole[:cut].count("\n") and failed == (done > 1)
        for line in ANSWERS[done:]:
            out.write(line.encode() + b"\n")
    assert file.read_text() == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("notes\n", "line 1 is no answer of this command"),
        ('{"prompt": "x"}\n', "line 1 is no answer of this command"),
        (ANSWERS[1] + "\n", "line 1 answers 1, not 'a'"),
        ("".join(f"{line}\n" for line in [*ANSWERS, ANSWERS[0]]), r"more answers than there are questions \(3\)"),
    ],
)
def test_files_that_are_no_answer_stay_as_they_are(tmp_path, content, message):
    file = tmp_path / "out.jsonl"
    begin(file, content)
    with pytest.raises(ValueError, match=message), rows.appending(file, LINES, SETTINGS):
        pass
    assert file.read_text() == content


def test_two_runs_do_not_write_one_file(tmp_path):
    file = tmp_path / "out.jsonl"
    with (
        rows.appending(file, LINES, SETTINGS),
        pytest.raises(ValueError, match="another run"),
        rows.appending(file, LINES, SETTINGS),
    ):
        pass
    with rows.appending(file, LINES, SETTINGS):
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_tokens": 6}, "was begun with max_new_tokens=5, not 6; it is now "),
        ({"model": "other"}, "was begun with model='m', not 'other'"),
        ({"top_k": 1}, "was begun with top_k=None, not 1"),
    ],
)
def test_a_run_with_other_settings_moves_the_file_aside(tmp_path, caplog, change, message):
    file, line = tmp_path / "out.jsonl", ANSWERS[0].encode() + b"\n"
    (tmp_path / "out.jsonl.1").write_text("of an earlier run")
    begin(file, line.decode())
    with rows.appending(file, LINES, {**SETTINGS, **change}) as (out, done, failed):
        assert (done, failed) == (0, 0)
        out.write(line)
        with pytest.raises(ValueError, match="another run"), rows.appending(file, LINES, SETTINGS):
            pass
    assert message in caplog.text and "out.jsonl.2" in caplog.text
    assert file.read_bytes() == line and (tmp_path / "out.jsonl.1").read_text() == "of an earlier run"
    with rows.appending(tmp_path / "out.jsonl.2", LINES, SETTINGS) as (_, done, _):  # goes on with its settings
        assert done == 1
    with rows.appending(file, LINES, {**SETTINGS, **change}) as (_, done, _):
        assert done == 1


def test_an_empty_file_takes_new_settings_and_answers_need_theirs(tmp_path):
    file = tmp_path / "out.jsonl"
    begin(file, ANSWERS[0][:5])
    with rows.appending(file, LINES, {"model": "other"}) as (out, done, _):
        assert done == 0
        out.write(ANSWERS[0].encode() + b"\n")
    (tmp_path / "out.jsonl.settings.json").unlink()
    again = rows.appending(file, LINES, {"model": "other"})
    with pytest.raises(ValueError, match="out.jsonl.settings.json with their settings is missing"), again:
        pass
