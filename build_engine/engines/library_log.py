"""The library's own log: sent to `logging`, and searched for what its API does not give.

What TensorRT calls an error ends a build and becomes our one sentence, or is a GPU that is missing where none is
needed. So its errors and warnings go to `logging` as information; FCNEDGE_LOG=INFO shows them, DEBUG everything.
"""

from __future__ import annotations

import logging
import re
import threading
from typing import Any

_LOG = logging.getLogger(__name__)
_LEVELS = {"INTERNAL_ERROR": logging.INFO, "ERROR": logging.INFO, "WARNING": logging.INFO}
_PARSED_NODE = re.compile(r"Parsing node: (.*) \[(\w+)\]$")


def library_log(module: Any, cancelled: threading.Event) -> Any:
    """A `module.ILogger` with errors: list of messages; node: (name, operator) parsed last; layers: the engine's table.

    Ctrl-C sets `cancelled`: an exception that left a method called from C++ would end the process.
    """

    class LibraryLog(module.ILogger):
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []
            self.node: tuple[str, str] | None = None
            self.layers = ""

        def log(self, severity: Any, msg: str) -> None:
            try:
                self._take(severity.name, msg)
            except KeyboardInterrupt:
                cancelled.set()

        def _take(self, severity: str, message: str) -> None:
            _LOG.log(_LEVELS.get(severity, logging.DEBUG), "%s: %s", severity, message)
            if severity in ("ERROR", "INTERNAL_ERROR"):
                self.errors.append(message)
            elif message.startswith("Layers:\n"):
                self.layers = message
            elif parsed := _PARSED_NODE.match(message):
                self.node = (parsed[1], parsed[2])

    return LibraryLog()


def last_reason(log: Any) -> str:
    """The last error of a `library_log` in parentheses, for the middle of a sentence; empty when there is none."""
    return f" ({reason_in(log.errors[-1])})" if log.errors else ""


def reason_in(text: str) -> str:
    """The part of the library's message that a reader can use: no heading, no source line, at most 300 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith(("Invalid Node", "Unsupported Node")):
        lines = lines[1:]
    line = lines[0] if lines else "it gives no reason"
    for heading in ("API Usage Error (", "Internal Error ("):
        line = line.partition(heading)[2] or line
    return line.partition(" In check")[0].rstrip(". )")[:300]
