"""JSONL files of a run: lines that were cut off, and separators of lines inside a text."""

from paddle_internvl.jsonl import append_objects, read_objects


def test_a_line_that_was_cut_off_does_not_count_and_is_replaced(tmp_path):
    file = tmp_path / "folder/lines.jsonl"
    assert read_objects(file) == []
    append_objects(file, [{"a": 1}, {"b": "two\u2028lines\x85 in one"}])
    whole = file.read_bytes()
    for torn in (b"", b'{"c', b'{"c": 3}'):
        file.write_bytes(whole + torn)
        assert read_objects(file) == [{"a": 1}, {"b": "two\u2028lines\x85 in one"}]
        append_objects(file, [{"d": 4}])
        assert file.read_bytes() == whole + b'{"d": 4}\n'
    file.write_bytes(b'{"c')
    append_objects(file, [])
    assert file.read_bytes() == b""
