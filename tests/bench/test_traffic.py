"""What is planned: arrivals as a Poisson process has them, requests that a server takes, all of it by the seed."""

import base64
import io
import json
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paddle_internvl.bench.traffic import KINDS, arrivals, body, parse_mix, plan
from paddle_internvl.serve.schema import ChatRequest


def test_arrivals_are_a_poisson_process():
    times = arrivals(50.0, seed=1, requests=4000)
    gaps = [b - a for a, b in zip([0.0, *times], times)]
    assert statistics.fmean(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.1)  # as wide as its mean: no fixed interval
    assert sum(gap > 2 / 50 for gap in gaps) / 4000 == pytest.approx(2.718281828**-2, rel=0.15)
    within = arrivals(50.0, seed=1, duration=10)
    assert within == times[: len(within)] and within[-1] < 10 <= times[len(within)]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"rate": 0, "requests": 1}, "rate=0 is not above 0"),
        ({"rate": float("nan"), "requests": 1}, "rate=nan"),
        ({"rate": 1}, "either a number of requests or a duration"),
        ({"rate": 1, "requests": 1, "duration": 1}, "either a number of requests or a duration"),
        ({"rate": 1, "requests": 0}, "requests=0"),
        ({"rate": 1, "duration": float("inf")}, "duration=inf"),
    ],
)
def test_arrivals_that_cannot_be(how, message):
    with pytest.raises(ValueError, match=message):
        arrivals(seed=0, **how)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KINDS), st.floats(0.001, 1e6), min_size=1))
def test_shares_add_up(shares):
    mix = parse_mix(", ".join(f"{kind} = {share!r}" for kind, share in shares.items()))
    assert mix.keys() == shares.keys() and sum(mix.values()) == pytest.approx(1)


@pytest.mark.parametrize("text", ["", "sound=1", "text", "text=much", "text=0", "text=-1,picture=2", "text=nan"])
def test_mixes_that_are_none(text):
    with pytest.raises(ValueError, match="mix"):
        parse_mix(text)


def test_the_same_seed_asks_the_same():
    times = arrivals(10.0, seed=3, requests=300)
    mix = {"text": 0.9, "picture": 0.08, "video": 0.02}
    first, again = (list(plan(times, mix, 3, model="m", max_tokens=7)) for _ in range(2))
    assert first == again and [request.at for request in first] == times
    assert 240 <= sum(request.kind == "text" for request in first) <= 290
    assert len({request.body for request in first}) == 300  # nothing is asked twice
    assert not {request.body for request in first} & {request.body for request in plan(times, mix, 4, model="m")}


@pytest.mark.parametrize("kind", KINDS)
def test_requests_are_what_the_server_takes(kind):
    asked = ChatRequest.model_validate_json(body(kind, 5, 0, model="m", max_tokens=7))
    assert asked.stream and asked.stream_options.include_usage and asked.limit == 7
    *media, text = json.loads(body(kind, 5, 0))["messages"][0]["content"]
    assert text["type"] == "text" and len(media) == (kind != "text")
    for part in media:
        url = part[part["type"]]["url"]
        with Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2]))) as picture:
            assert (getattr(picture, "n_frames", 1) == 4) == (kind == "video")
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 1  # there is something to see
