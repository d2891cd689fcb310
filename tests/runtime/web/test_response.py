"""Heads are as HTTP has them, whatever the answer."""

import pytest

from fcnedge.runtime.web.response import head, sentence


def fields(data):
    line, *rest = data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    return line, dict(field.split(": ", 1) for field in rest)


def test_head_says_status_type_and_length():
    line, headers = fields(head(200, "text/plain", 3))
    assert line == "HTTP/1.1 200 OK"
    assert (headers["Content-Type"], headers["Content-Length"], headers["Connection"]) == ("text/plain", "3", "close")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_stream_has_no_length():
    assert "Content-Length" not in fields(head(200, "multipart/x-mixed-replace; boundary=frame"))[1]


def test_policy_is_added_to_nothing():
    policy = fields(head(200, "text/html", 0, policy="img-src 'self'"))[1]["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith("; img-src 'self'")


@pytest.mark.parametrize("status", [303, 400, 401, 403, 404, 405, 408, 413, 414, 431, 503])
def test_sentence_is_plain_text_of_its_length(status):
    data, body = sentence(status, "Größe.", (("X", "y"),))
    line, headers = fields(data)
    assert line.startswith(f"HTTP/1.1 {status} ")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Content-Length"] == str(len(body))
    assert headers["X"] == "y"
    assert body.decode() == "Größe.\n"
