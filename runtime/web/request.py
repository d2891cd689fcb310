"""One HTTP request, read with every limit that a page for a handful of people can afford.

Nothing but GET and HEAD without a body is taken, and a connection carries one request: what is not spoken cannot be
abused. Sizes follow RFC 9110 (sections 4.1, 5.4: limits are the server's) and RFC 9112.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

MAX_REQUEST_BYTES = 8192
"""Request line and headers together."""
MAX_LINE_BYTES = 2048
REQUEST_TIMEOUT_S = 5.0

_LINE = re.compile(r"([A-Z]{1,16}) (/[\x21-\x7e]*) HTTP/1\.([01])")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")


class Refusal(Exception):  # noqa: N818 - it is an answer, not an error of the program
    """The request is answered with `status` and one sentence."""

    def __init__(self, status: int, sentence: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers


@dataclass(frozen=True)
class Request:
    """method: GET or HEAD; path: as sent, nothing decoded; headers: by name in small letters."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The request; None when the other side said nothing and went. `reader` must be limited to MAX_REQUEST_BYTES.

    Raises Refusal for one that is too long, too slow, or not as HTTP has it.
    """
    try:
        data = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), REQUEST_TIMEOUT_S)
    except asyncio.LimitOverrunError:
        raise Refusal(431, f"The request is longer than {MAX_REQUEST_BYTES} bytes.") from None
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise Refusal(400, "The request ended before its empty line.") from None
    except (asyncio.TimeoutError, TimeoutError):  # two classes before Python 3.11
        raise Refusal(408, f"The request did not come within {REQUEST_TIMEOUT_S:g} seconds.") from None
    return parse_request(data)


def parse_request(data: bytes) -> Request:
    """The request in `data`, which ends in an empty line. Raises Refusal for what is not as HTTP has it."""
    line, *rest = data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    if len(line) > MAX_LINE_BYTES:
        raise Refusal(414, f"The request line is longer than {MAX_LINE_BYTES} bytes.")
    found = _LINE.fullmatch(line)
    if found is None:
        raise Refusal(400, "The request line is not one of HTTP/1.")
    method, target, minor = found.groups()
    if method not in ("GET", "HEAD"):
        raise Refusal(405, "The page is only looked at: GET and HEAD.", (("Allow", "GET, HEAD"),))
    headers = _headers(rest)
    if minor == "1" and "host" not in headers:
        raise Refusal(400, "The request names no host.")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise Refusal(413, "The page takes no request with a body.")
    path, _, query = target.partition("?")
    try:
        return Request(method, path, dict(parse_qsl(query, keep_blank_values=True, max_num_fields=8)), headers)
    except ValueError:
        raise Refusal(400, "The request has more than 8 parameters.") from None


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise Refusal(400, "A header of the request is not as HTTP has it.")
        name = found[1].lower()
        if name in headers and name in ("host", "cookie", "authorization", "content-length"):
            raise Refusal(400, f"The request has the header {name} twice.")
        headers[name] = found[2]
    return headers
