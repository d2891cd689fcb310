"""Whether ONNX Runtime's CUDA provider loads here: its wheel has the provider also where CUDA's libraries are missing.

`python -m fcnedge.build_engine.cuda_provider` loads it as ONNX Runtime does and prints what is missing. That is done in
a process of its own: these are hundreds of megabytes, and what breaks one must not break the doctor.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

from fcnedge.runtime.backends.onnxruntime_cuda import load_onnxruntime
from fcnedge.runtime.errors import UserError

_TIMEOUT_S = 120
# The second finds symbols in the first, which ONNX Runtime loads before it.
_PROVIDER = ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so")
# From 1.31 on the provider loads cuDNN only when the first layer asks for it, and convolutions do:
# https://github.com/microsoft/onnxruntime/pull/29252
_CUDNN = "libcudnn.so.9"


def why_not() -> str:
    """What keeps the provider from loading, the library that is missing first of all; empty when it loads.

    On Linux; elsewhere nobody looks. Modules are searched for where this process finds them.
    """
    if sys.platform != "linux":
        return ""
    command = [sys.executable, "-m", __name__]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it could not be tried: {error}"
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [""])[-1]
        return f"loading it ends with exit code {done.returncode} {said}".strip()
    return done.stdout.strip()


def load() -> str:
    """As `why_not`, in this process."""
    try:
        onnxruntime = load_onnxruntime("cuda")
    except UserError as error:
        return str(error)
    folder = Path(onnxruntime.__file__).with_name("capi")
    try:
        for name in _PROVIDER:
            ctypes.CDLL(str(folder / name), ctypes.RTLD_GLOBAL)
        if "libcudnn" not in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace"):
            ctypes.CDLL(_CUDNN)
    except OSError as error:
        return str(error).partition("\n")[0]
    return ""


if __name__ == "__main__":
    sys.stdout.write(load())
