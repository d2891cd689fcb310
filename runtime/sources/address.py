"""Addresses of cameras in words that may be shown: passwords and tokens are hidden before any message holds them."""

from __future__ import annotations

import re
import socket
from urllib.parse import SplitResult, urlsplit

from fcnedge.runtime.errors import SourceError

HIDDEN = "***"

# user:password@ up to the last @ there is: a password may itself hold a raw @, / or #, and a path with an @ is rarer.
_USER_INFO = re.compile(r"(?<=://)([^\s/?#:@\"']*):[^\s\"']*@")
# ?user=admin&pwd=secret in an address, user-pw=secret in a GStreamer string
_NAMED = re.compile(
    r"(?i)([\w-]*(?:passw|pwd|user-pw|proxy-pw|token|secret|auth|api-?key|signature)[\w-]*\s*=\s*)"
    r"(?:\"(?:\\.|[^\"\\])*\"|[^\s&#;!]+)"
)
_PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322}


def hide_password(text: str) -> str:
    """The address or pipeline with each password and token in it as ***."""
    return _NAMED.sub(rf"\g<1>{HIDDEN}", _USER_INFO.sub(rf"\g<1>:{HIDDEN}@", text))


def split_address(address: str) -> SplitResult:
    """The parts of a network address. Raises SourceError, without a password, for one that names no host or port."""
    try:
        parts = urlsplit(address)
        if parts.hostname and parts.port != 0 and not any(character.isspace() for character in address):
            return parts
    except ValueError:  # a port that is no number, as when a password holds a /
        pass
    raise SourceError(
        f"{hide_password(address)} names no camera; write it as {address.partition('://')[0]}://host:port/path, "
        "and a / @ or : within user or password as %2F, %40 or %3A"
    )


def host_and_port(parts: SplitResult) -> tuple[str, int]:
    """Where the address connects to, with its scheme's own port where it names none."""
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 554)


def why_no_connection(host: str, port: int, timeout_s: float) -> str | None:
    """Why no connection to the port can be made, as the end of a sentence; None when one can. Raises nothing."""
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except (socket.gaierror, UnicodeError):  # the latter for a name that no host can have
        return f"the name {host} is not known"
    except ConnectionRefusedError:
        return f"nothing listens on port {port} of {host}"
    except TimeoutError:
        return f"{host} does not answer on port {port}"
    except OSError as error:
        return f"{host} cannot be reached: {error.strerror or error}"
    return None
