"""Memory of this process.

On Linux from /proc/self/status, proc(5): VmHWM is the peak of the resident set since the process began, VmRSS the
resident set now. Not from getrusage(2) there: its ru_maxrss is never below what the process that started this one held.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def resident_bytes(root: Path = Path("/")) -> int | None:
    """What this process holds in memory now; None where /proc does not tell."""
    return _status(root, "VmRSS")


def peak_bytes(root: Path = Path("/")) -> int | None:
    """The most that this process has held; None where /proc does not tell."""
    return _status(root, "VmHWM")


def peak_rss_bytes(*, children: bool = False) -> int:
    """The most that this process has held, or with `children` it or any child that has ended, whichever held more.

    Off Linux by getrusage(2).
    """
    peak = peak_bytes() or _usage(resource.RUSAGE_SELF)
    return max(peak, _usage(resource.RUSAGE_CHILDREN)) if children else peak


def _usage(who: int) -> int:
    return resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(root: Path, key: str) -> int | None:
    try:
        lines = (root / "proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)
