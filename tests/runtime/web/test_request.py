"""Requests are read within limits, and everything else is refused with a status."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fcnedge.runtime.web import request as request_module
from fcnedge.runtime.web.request import MAX_LINE_BYTES, MAX_REQUEST_BYTES, Refusal, parse_request

HOST = b"Host: 127.0.0.1\r\n"


def test_request_is_taken_apart():
    request = parse_request(b"GET /stream/raw.mjpg?source=1&token=a%2Bb HTTP/1.1\r\nHost: x:1\r\nX-Y:  z \r\n\r\n")
    assert (request.method, request.path) == ("GET", "/stream/raw.mjpg")
    assert request.query == {"source": "1", "token": "a+b"}
    assert request.headers == {"host": "x:1", "x-y": "z"}


def test_path_is_left_as_it_was_sent():
    assert parse_request(b"GET /%2e%2e/a HTTP/1.1\r\n" + HOST + b"\r\n").path == "/%2e%2e/a"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH"])
def test_only_get_and_head_are_answered(page, ask, method):
    answer = ask(page, "/", method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no host
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET http://127.0.0.1/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"No colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: \x00\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /?" + b"a=1&" * 9 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),  # how TLS begins
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", 413),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", 413),
        (b"GET /" + b"a" * MAX_LINE_BYTES + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * MAX_REQUEST_BYTES + b"\r\n\r\n", 431),
        (b"a" * 20 * MAX_REQUEST_BYTES, 431),
    ],
)
def test_request_that_is_not_as_http_has_it_is_refused(page, ask, data, status):
    answer = ask(page, data)
    assert answer.status == status
    assert answer.body.endswith(b".\n")
    assert ask(page, "/").status == 200, "the page goes on"


def test_http_1_0_without_host_is_answered(page, ask):
    assert ask(page, b"GET / HTTP/1.0\r\n\r\n").status == 200


def test_request_that_never_ends_is_refused(monkeypatch, page, ask):
    monkeypatch.setattr(request_module, "REQUEST_TIMEOUT_S", 0.05)
    assert ask(page, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n").status == 408


def test_connection_that_says_nothing_and_goes_is_no_matter(page, ask, connect, caplog):
    connect(page).close()
    connect(page).send(b"GET /")
    assert ask(page, "/").status == 200
    assert not caplog.records


@given(st.binary(max_size=200))
@example(b"GET /?%ff HTTP/1.1\r\nHost: \xff")
def test_any_bytes_are_a_request_or_a_refusal(data):
    with contextlib.suppress(Refusal):
        assert parse_request(data + b"\r\n\r\n").method in ("GET", "HEAD")
