"""Memory as `fcn-bench latency` reports it: of the measuring process on the host, and on the GPU by NVML."""

from __future__ import annotations

from dataclasses import dataclass


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
