"""Who may look: by the host that is asked for on loopback, by token everywhere else.

On loopback no one outside can connect, but any web page that the person at this machine opens can make the browser
connect: it points a name of its own at 127.0.0.1 (DNS rebinding) and is then of the same origin. The browser says that
name in the header Host, so only names of loopback are answered. Any port will do: an SSH tunnel may have another.

Elsewhere a token is needed, once in the address (`/?token=…`) and then as a cookie of another, random value: HttpOnly,
so that no script reads it, and SameSite=Lax, so that pages of others cannot embed the streams, while a link from a chat
window still opens the page (Strict would lose the cookie in that very redirect). Without it there is nothing to see,
which is why Host is of no interest then. Programs that keep no cookies send the token with each request, as parameter
or as `Authorization: Bearer`. Tokens are compared in constant time.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets

from ..errors import UserError
from .address import is_loopback
from .request import Refusal, Request

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{8,128}")  # characters that need no escape in an address
_WRONG_TOKEN_DELAY_S = 0.5  # guesses cost time, honest mistakes hardly


class Access:
    """loopback: whether the page listens there only. token: None for no token. port: tells pages of one host apart.

    Raises UserError for a token that is missing, too short or would need escapes.
    """

    def __init__(self, host: str, port: int, token: str | None) -> None:
        self._loopback = is_loopback(host)
        if token is None and not self._loopback:
            raise UserError(
                f"the page on {host} can be reached from the network and needs a token (--token, 8 characters or "
                "more), or the address 127.0.0.1, which needs none."
            )
        if token is not None and not _TOKEN.fullmatch(token):
            raise UserError("a token has 8 to 128 characters, of A-Z, a-z, 0-9 and ._~-; give the page another.")
        self._token = token
        self._cookie = f"fcnedge_{port}"
        self._session = secrets.token_urlsafe(32)

    async def check(self, request: Request) -> None:
        """Raise Refusal unless the request may be answered; at a first visit, the redirect that brings the cookie."""
        if self._loopback and not _names_loopback(request.headers.get("host")):
            raise Refusal(403, "This page is for the machine it runs on: ask for it as 127.0.0.1 or localhost.")
        if self._token is None or _same(self._cookie_of(request), self._session):
            return
        given = request.query.get("token") or _bearer(request)
        if given is None:
            raise Refusal(401, "This page needs its token: add ?token=… to the address, once.", _CHALLENGE)
        if not _same(given, self._token):
            await asyncio.sleep(_WRONG_TOKEN_DELAY_S)
            raise Refusal(401, "This is not the token of this page.", _CHALLENGE)
        if request.path == "/" and "token" in request.query:
            cookie = f"{self._cookie}={self._session}; HttpOnly; SameSite=Lax; Path=/"
            raise Refusal(303, "The page is here.", (("Location", "./"), ("Set-Cookie", cookie)))

    def _cookie_of(self, request: Request) -> str:
        pairs = (pair.strip().partition("=") for pair in request.headers.get("cookie", "").split(";"))
        return next((value for name, _, value in pairs if name == self._cookie), "")


_CHALLENGE = (("WWW-Authenticate", "Bearer"),)


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _names_loopback(host: str | None) -> bool:
    """Whether the header Host is a name of loopback, with any port. HTTP/1.0 may have none; no browser speaks it."""
    if host is None:
        return True
    name = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:]*)(?::\d{0,5})?", host)
    return name is not None and (name[1].lower() == "localhost" or is_loopback(name[1].strip("[]")))
