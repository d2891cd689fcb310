"""What is not written says what is."""

import pytest

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.sinks import open_sink


@pytest.mark.parametrize("uri", ["https://127.0.0.1:8080", "ftp://10.0.0.1/x"])
def test_unsupported_schemes_say_what_is_written(uri):
    scheme = uri.partition(":")[0]
    with pytest.raises(
        UserError, match=f"does not write to {scheme}://.*display://0, rtp://.* and null://, .*http://127.0.0.1:8080"
    ):
        open_sink(uri)


def test_live_page_is_not_opened_without_a_model():
    with pytest.raises(UserError, match=r"would be a live page, which only fcn-run and PageSink make; .*null://$"):
        open_sink("http://127.0.0.1:8080")


@pytest.mark.parametrize("uri", ["out.txt", "out.webm", "", "file://"])
def test_unknown_endings_say_what_is_written(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="fcnedge writes a folder"):
        open_sink(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "rtp://10.0.0.1",
        "rtp://:5000",
        "rtsp:///live",
        "rtsp://me:pa/ss@host/live",
        "rtp://10.0.0.1:port",
        "rtp://a b:1",
    ],
)
def test_network_address_that_is_incomplete_says_how_it_is_written_without_the_password(uri):
    with pytest.raises(
        UserError, match=r"cannot be streamed to; write rtp://HOST:PORT or rtsp://HOST:PORT/PATH"
    ) as told:
        open_sink(uri)
    assert "pa/ss" not in str(told.value)


def test_second_display_is_named_otherwise():
    with pytest.raises(UserError, match=r"display://1 is no display; write display://0, and DISPLAY=:1"):
        open_sink("display://1")
