"""One row of a comparison before it is measured: its name, and how a child process opens it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fcnedge.runtime.errors import UserError


@dataclass(frozen=True)
class Opened:
    """A way from frame to mask, ready to run.

    segment: (H, W, 3) uint8 BGR → (H, W) uint8 class ids. versions: of the packages that run it, by name. detail: what
    a reader should know about how it was set up.
    """

    segment: Callable[[np.ndarray], np.ndarray]
    versions: dict[str, str] = field(default_factory=dict)
    detail: str = ""


@dataclass(frozen=True)
class Entry:
    """A row to measure. It travels to a child process, so `open` must be picklable: a function of a module, or partial.

    open: takes the number of threads; raises UserError when it cannot be opened. precision: of our own rows, None for a
    peer. reason: why there is nothing to open, known beforehand; None where there is.
    """

    name: str
    open: Callable[[int], Opened] | None
    precision: str | None = None
    reason: str | None = None

    @property
    def ours(self) -> bool:
        """Whether this is one of our own rows."""
        return self.precision is not None


def missing_peer(package: str) -> UserError:
    """The error for a peer's package that is not installed; names the command that installs it."""
    return UserError(f"{package} is not installed; install it with: pip install 'fcnedge[peers]'")


def versions_of(*packages: str) -> dict[str, str]:
    """Version by package; one that pip does not know is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # noqa: PERF203 - a handful of names
            continue
    return found
