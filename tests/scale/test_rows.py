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
    dialogue, _ = rows.parse(json.dumps(row), FOLDER)
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
    dialogue, generation = rows.parse(json.dumps(row), FOLDER)
    (turn,) = dialogue.turns
    assert generation == {"top_k": 1} and turn.parts[-1] == "What?"
    assert [part.source for part in turn.parts[:-1]] == ["/data/a.png", "/data/b.png"]
    assert turn.parts[1].options == {"max_num": 1}
    (turn,) = rows.parse('{"prompt": "Hi", "images": null}', FOLDER)[0].turns
    assert turn.parts == ("Hi",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "the row is no JSON"),
        ("[]", "'messages', or with 'prompt'"),
        ('{"question": "x"}', "'messages', or with 'prompt'"),
        ('{"prompt": "x", "image": "a.png"}', "field 'image' is not known beside 'prompt'"),
        ('{"messages": [], "images": []}', "field 'images' is not known beside 'messages'"),
        ('{"prompt": 3}', "'prompt' is a text"),
        ('{"prompt": "x", "images": "a.png"}', "'images' a list"),
        ('{"prompt": "x", "generation": 3}', "'generation' is an object"),
    ],
)
def test_rows_that_are_none(line, message):
    with pytest.raises(ValueError, match=message):
        rows.parse(line, FOLDER)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "image", "image_url", "url", "content", "role", "text"]), inner)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.text(max_size=20) | json_values.map(json.dumps) | json_values.map(lambda v: json.dumps({"messages": v})))
def test_no_row_is_more_than_an_error(line):
    try:
        rows.parse(line, FOLDER)
    except ValueError:
        assert rows.name_of(line, 5) is not FOLDER


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


LINES = ['{"id": "a", "prompt": "x"}', "no json", '{"prompt": "y"}']
ANSWERS = [rows.answer_line("a", WHOLE), rows.answer_line(1, ValueError("bad")), rows.answer_line(2, WHOLE)]


@settings(deadline=None)
@given(cut=st.integers(0, len("\n".join(ANSWERS)) + 1))
def test_a_run_goes_on_where_it_was_torn(tmp_path_factory, cut):
    """At any end of the file: complete lines stay, an incomplete one is cut off, and the final file is the same."""
    file, whole = tmp_path_factory.mktemp("out") / "out.jsonl", "".join(f"{line}\n" for line in ANSWERS)
    file.write_text(whole[:cut])
    with rows.appending(file, LINES) as (out, done, failed):
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
    file.write_text(content)
    with pytest.raises(ValueError, match=message), rows.appending(file, LINES):
        pass
    assert file.read_text() == content


def test_two_runs_do_not_write_one_file(tmp_path):
    file = tmp_path / "out.jsonl"
    with rows.appending(file, LINES), pytest.raises(ValueError, match="another run"), rows.appending(file, LINES):
        pass
    with rows.appending(file, LINES):
        pass
