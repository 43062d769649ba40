"""Row 4: data URLs are base64 in any of its usual forms, of a fitting media type and within the limit."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_internvl.media.data_urls import decode_data_url
from paddle_internvl.media.errors import MediaError

BODY = bytes(range(256))
TEXT = base64.b64encode(BODY).decode()
NOT_BASE64 = [TEXT[:-1], TEXT + "A", "é", "A===", "A", "=AAA", "AAAA====", "AA%", "AA*A", "AA%00A"]
NOT_BASE64 += ["AAA=AAAA", "AAAA=", "AA==AA==", "AAAA==", "===="]


FORMS = {
    "line breaks": base64.encodebytes(BODY).decode(),
    "CRLF and tabs": "\r\n\t".join(TEXT[i : i + 76] for i in range(0, len(TEXT), 76)),
    "spaces around": f" {TEXT}\n",
    "no padding": TEXT.rstrip("="),
    "percent-encoded": quote(TEXT, safe=""),
    "percent-encoded in lower case": TEXT.replace("+", "%2b").replace("/", "%2f").replace("=", "%3d"),
    "URL-safe": base64.urlsafe_b64encode(BODY).decode(),
    "URL-safe without padding": base64.urlsafe_b64encode(BODY).decode().rstrip("="),
    "percent-encoded line breaks": TEXT[:40] + "%0A" + TEXT[40:],
}


def status(*arguments):
    with pytest.raises(MediaError) as caught:
        decode_data_url(*arguments)
    return caught.value.status


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        ("data:image/png;base64,", "image"),
        ("DATA:IMAGE/JPEG;Base64,", "image"),
        ("data:;base64,", "image"),
        ("data:application/octet-stream;base64,", "video"),
        ("data:image/png;charset=utf-8;name=a.png;base64,", "image"),
        ("data:video/mp4;base64,", "video"),
        ("data:image/gif;base64,", "video"),
    ],
)
def test_data_urls(start, kind):
    assert decode_data_url(start + TEXT, kind, 256) == BODY


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_base64(form):
    assert decode_data_url("data:image/png;base64," + FORMS[form], "image", 256) == BODY


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("data:", "image"),
        ("data:image/png;base64", "image"),
        ("data:image/png," + TEXT, "image"),
        ("data:text/html;base64," + TEXT, "image"),
        ("data:video/mp4;base64," + TEXT, "image"),
        ("data:image/jpeg;base64," + TEXT, "video"),
        ("data:imagex/png;base64," + TEXT, "image"),
        ("data:" + "x" * 2000 + ";base64," + TEXT, "image"),
        *[(f"data:image/png;base64,{text}", "image") for text in NOT_BASE64],
    ],
)
def test_data_urls_refused(url, kind):
    assert status(url, kind, 1000) == 400


def test_data_url_is_measured_before_it_is_decoded():
    garbage = "data:image/png;base64," + "!" * 1000  # no base64: decoding it first would give status 400
    assert status(garbage, "image", 100) == 413
    for size in range(250, 260):
        url = "data:image/png;base64," + base64.b64encode(bytes(size)).decode()
        assert decode_data_url(url, "image", size) == bytes(size)
        assert status(url, "image", size - 1) == 413


@given(st.text(max_size=60), st.sampled_from(["data:", "data:image/png;base64,", "data:;", ""]))
def test_any_data_url(rest, start):
    try:
        decode_data_url(start + rest, "image", 50)
    except MediaError as error:
        assert error.status in (400, 413)
