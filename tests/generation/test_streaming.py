"""Streaming detokenization: pieces sum to the whole answer, and end inside no character and no stop string."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paddle_internvl.generation.streaming import IncrementalText, TextStream
from paddle_internvl.prompt.stop_strings import cut_at_stop, partial_stop_length


def stream(ids, decode, stops=()):
    out = TextStream(decode, stops)
    pieces = []
    for token in ids:
        pieces.append(out.push(token))
        if out.stopped:
            break
    return [*pieces, out.finish()]


@settings(max_examples=300, deadline=None)
@given(
    ids=st.lists(st.integers(0, 1008), max_size=40),
    stops=st.lists(st.sampled_from(["circle", "的", "</s>", " a"]), max_size=2),
)
def test_pieces_sum_to_the_whole(tokenizer, ids, stops):
    decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=True)  # noqa: E731
    text = decode(ids)
    ended = cut_at_stop(text, stops)
    whole = (text if ended is None else ended).strip()
    assert "".join(stream(ids, decode, stops)) == whole


@pytest.mark.parametrize("text", ["a red circle and a blue square", "un cercle rouge\n\n- et un carré", "红色的圆"])
def test_a_text_is_continued(tokenizer, text):
    ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))
    whole = [text[: len(tokenizer.decode(ids[:k]))] for k in range(len(ids) + 1)]
    for k in range(1, len(ids)):
        if whole[k] != tokenizer.decode(ids[:k]):
            continue  # inside a character
        out = TextStream(tokenizer.decode, before=ids[:k])
        pieces = [*map(out.push, ids[k:]), out.finish()]
        assert whole[k] + "".join(pieces) == text


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet="你好😀é a.'nt", max_size=20))
@example("a ' .")  # the blank is joined to the apostrophe first, then to the full stop
def test_no_piece_ends_inside_a_character(tokenizer, text):
    ids = [tokenizer.sp_model.piece_to_id(f"<0x{byte:02X}>") for byte in text.encode()]  # a byte a token
    pieces = stream(ids, tokenizer.decode)
    assert "".join(pieces) == tokenizer.decode(ids).strip()
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_long_text_is_that_of_all_its_ids(tokenizer, data):
    """Past the points where older ids are settled: after 128 ids, after 64 more, and at special tokens."""
    some = data.draw(st.lists(st.integers(0, 1008), min_size=2, max_size=8))  # frequent pairs at seams
    few = st.sampled_from([*some, data.draw(st.sampled_from(tokenizer.all_special_ids))])
    ids = data.draw(st.lists(st.one_of(few, st.integers(0, 1008)), min_size=140, max_size=220))
    skip = data.draw(st.booleans())
    decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=skip)  # noqa: E731
    incremental = IncrementalText(decode, () if skip else tokenizer.all_special_ids)
    for i, token in enumerate(ids):
        incremental.push(token)
        if i > 120 or token in tokenizer.all_special_ids:
            assert incremental.text == decode(ids[: i + 1])


@pytest.mark.parametrize("every", [1, 5, 300, 10**9])
def test_a_long_text_is_decoded_in_bounded_parts(every):
    """In all, and in each part: with special tokens, too, every id is decoded a bounded number of times."""
    ids = [ord("A") if i % every == every - 1 else ord("a") + i % 26 for i in range(2000)]
    lengths = []
    incremental = IncrementalText(lambda ids: lengths.append(len(ids)) or letters(ids), {ord("A")})
    for i, token in enumerate(ids):
        incremental.push(token)
        assert len(incremental.text) == i + 1
    assert incremental.text == letters(ids)
    assert sum(length for length in lengths if length > 128) <= 2 * len(ids)
    assert all(length <= max(128, every + 4) for length in lengths)


def letters(ids):
    return "".join(map(chr, ids))


@pytest.mark.parametrize(
    ("text", "stops", "pieces"),
    [
        ("abSTOPcd", ["STOP"], ["a", "b", "", "", "", "", ""]),
        ("abSTOcd", ["STOP"], ["a", "b", "", "", "", "STOc", "d", ""]),
        ("  a b  ", [], ["", "", "a", "", " b", "", "", ""]),
        ("it 's", [], ["i", "t", "", "", " 's", ""]),
    ],
)
def test_pieces_by_hand(text, stops, pieces):
    assert stream(map(ord, text), letters, stops) == pieces


def test_stop_strings_that_overlap():
    assert cut_at_stop("a b c", ["c", "b"]) == "a "
    assert cut_at_stop("abc", []) is None
    assert cut_at_stop("a b c", ["c", "b"], kept=["b"]) == "a b"
    assert partial_stop_length("xab", ["abc", "bcd"]) == 2
    assert partial_stop_length("ab", ["ab"]) == 0  # complete: cut, not held back
    assert partial_stop_length("", ["a"]) == 0


def test_a_raw_continuation_keeps_its_white_space():
    stream = TextStream(lambda ids: "".join(map(chr, ids)), ("END",), strip=False)
    pieces = [stream.push(ord(character)) for character in "  a \nb \nEND"] + [stream.finish()]
    assert "".join(pieces) == stream.text == "  a \nb \n" and stream.stopped
