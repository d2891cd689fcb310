"""Which of a bundle's graphs the CPU at hand runs best."""

from __future__ import annotations

import functools
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_VNNI = {"avx512_vnni", "avx_vnni"}


@functools.cache
def cpu_target() -> str | None:
    """`vnni` on an x86 CPU that multiplies unsigned by signed bytes into 32 bits (VNNI), None on any other.

    Without VNNI such products are summed up in 16 bits, where they saturate: labels would change without a word. See
    "When to use S8S8, U8S8" in https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html. Read from
    Linux's /proc/cpuinfo; None where there is none.
    """
    try:
        lines = _CPUINFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return "vnni" if _VNNI.intersection(flags) else None
