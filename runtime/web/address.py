"""Where the live page listens, and who can reach it there: this machine alone, or the network too."""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import UserError

_EXAMPLE = "http://127.0.0.1:8080"
_DEFAULT_PORT = 8080


@dataclass(frozen=True)
class PageAddress:
    """host: name or number to listen on, without brackets; port: 0 takes any that is free."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> PageAddress:
        """`http://HOST:PORT`, `HOST:PORT` or `HOST`. Raises UserError, in one sentence, for anything else."""
        url = text if "://" in text else f"http://{text}"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UserError(f"{text!r} is no address for a page ({error}); one looks like {_EXAMPLE}.") from None
        if parts.scheme.lower() != "http":
            raise UserError(
                f"the page speaks http, not {parts.scheme}; give it an address such as {_EXAMPLE}, and put a proxy in "
                "front of it for more."
            )
        extras = (parts.path.strip("/"), parts.query, parts.fragment, parts.username, parts.password)
        if not host or any(extras) or not host.isprintable() or " " in host:
            raise UserError(f"{text!r} is no address for a page; it needs a host, may have a port: {_EXAMPLE}.")
        return cls(host, _DEFAULT_PORT if port is None else port)

    def listen(self) -> socket.socket:
        """A bound and listening socket, not blocking. Raises UserError when the port is in use or the host not ours."""
        family, address = self._resolved()
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except OSError as error:
            listener.close()
            raise UserError(self._why_not(error)) from error
        listener.setblocking(False)
        return listener

    def _resolved(self) -> tuple[int, tuple]:
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            raise UserError(f"the host {self.host!r} of the page is unknown ({error}); try {_EXAMPLE}.") from error
        found.sort(key=lambda each: each[0] != socket.AF_INET)  # `localhost` has both: IPv4 is what tunnels ask for
        return int(found[0][0]), found[0][4]

    def _why_not(self, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE:
            return f"port {self.port} of {self.host} is in use by another program; give the page another port."
        if error.errno == errno.EACCES:
            return f"port {self.port} needs administrator's rights; give the page one from 1024 on."
        if error.errno == errno.EADDRNOTAVAIL:
            return f"{self.host} is no address of this machine; give the page one that is, or {_EXAMPLE}."
        return f"the page cannot listen on {self.host}, port {self.port} ({error.strerror}); try {_EXAMPLE}."


def is_loopback(host: str) -> bool:
    """Whether `host`, a number such as 127.0.0.1 or ::1, is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_of(listener: socket.socket) -> str:
    """`http://HOST:PORT/` of a listening socket; for one that listens everywhere, with this machine's name."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
