"""The kernels under AddressSanitizer and UBSan, every buffer guarded at both ends: they stay inside their buffers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHILD = """
import importlib.util, pathlib, sys
import numpy as np
spec = importlib.util.spec_from_file_location("kernels_conftest", sys.argv[1])
conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conftest)
from fcnedge.runtime.cuda.geometry import KernelLaunch, overlay_launch
kernels = conftest.CpuKernels(pathlib.Path(sys.argv[2]))
frame, labels, table = np.zeros((5, 5, 3), np.uint8), np.zeros(int(sys.argv[3]), np.uint8), np.ones(768, np.uint8)
kernels.overlay(overlay_launch((5, 5), 0.5), frame, labels, table, table[:256])
print("ran to the end")
"""


def sanitized_environment() -> dict[str, str]:
    """Environment of a Python that has AddressSanitizer preloaded; skips where g++ has none."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ on PATH; the kernels cannot be compiled for the CPU")
    found = [
        subprocess.run(["g++", f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(Path(name).is_absolute() for name in found):
        pytest.skip("g++ has no AddressSanitizer here; install its package (libasan, libubsan)")
    # Python's own allocations live until it ends; it is the kernels' accesses that count.
    return {**os.environ, "LD_PRELOAD": " ".join(found), "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0"}


@pytest.mark.slow
def test_kernels_stay_inside_their_buffers():
    environment = sanitized_environment() | {"FCNEDGE_SANITIZE_KERNELS": "1", "FCNEDGE_KERNEL_EXAMPLES": "40"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(HERE / "test_kernels.py")]
    child = subprocess.run(command, cwd=HERE.parents[2], env=environment, capture_output=True, text=True)
    assert child.returncode == 0, (child.stdout + child.stderr)[-4000:]
    assert " passed" in child.stdout
    assert "skipped" not in child.stdout


@pytest.mark.parametrize(("label_bytes", "inside"), [(25, True), (24, False)])
def test_sanitizer_notices_one_byte_too_few(tmp_path, compile_kernels, label_bytes, inside):
    environment = sanitized_environment()
    library = compile_kernels(tmp_path, sanitize=True)
    command = [sys.executable, "-c", CHILD, str(HERE / "conftest.py"), str(library), str(label_bytes)]
    child = subprocess.run(command, cwd=HERE.parents[2], env=environment, capture_output=True, text=True)
    assert ("ran to the end" in child.stdout) is inside
    assert ("heap-buffer-overflow" in child.stderr) is not inside
