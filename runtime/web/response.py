"""Heads of HTTP answers, with the headers that keep a browser from doing more than it should."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

_ALWAYS = (
    ("Cache-Control", "no-store"),  # pictures of somebody's workshop belong in no cache
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),  # the address may hold the token
    ("Cross-Origin-Resource-Policy", "same-origin"),  # no page of others shows these pictures
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Connection", "close"),
)
_NOTHING_ELSE = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def head(
    status: int,
    content_type: str,
    length: int | None = None,
    *,
    headers: Iterable[tuple[str, str]] = (),
    policy: str = "",
) -> bytes:
    """Status line and headers, with their empty line. length: bytes of the body, None for a stream without end.

    policy: what the Content-Security-Policy allows beyond nothing, such as "img-src 'self'".
    """
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {content_type}"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    security = ("Content-Security-Policy", f"{_NOTHING_ELSE}; {policy}" if policy else _NOTHING_ELSE)
    lines += [f"{name}: {value}" for name, value in (*_ALWAYS, security, *headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def sentence(status: int, text: str, headers: Iterable[tuple[str, str]] = ()) -> tuple[bytes, bytes]:
    """Head and body of an answer that is one sentence."""
    body = (text + "\n").encode()
    return head(status, "text/plain; charset=utf-8", len(body), headers=headers), body
