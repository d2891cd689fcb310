"""Memory of the measuring process: on the host from /proc/self/status, on the GPU from NVML.

proc(5): VmHWM is the peak of the resident set since the process began, VmRSS the resident set now.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Memory:
    """host_peak_bytes: of this process in stream mode, from its start on: Python, OpenCV, source and model together.

    host_before_bytes: what it held before the model was opened. gpu_bytes: what it holds on the GPU once the stream
    has run. reason: why a number is None.
    """

    host_peak_bytes: int | None
    host_before_bytes: int | None
    gpu_bytes: int | None
    reason: str | None


def resident_bytes(root: Path = Path("/")) -> int | None:
    """What this process holds in memory now."""
    return _status(root, "VmRSS")


def peak_bytes(root: Path = Path("/")) -> int | None:
    """The most that this process has held."""
    return _status(root, "VmHWM")


def _status(root: Path, key: str) -> int | None:
    try:
        lines = (root / "proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)
