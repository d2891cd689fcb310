"""pycuda's driver module, loaded and started, or one sentence about what is missing."""

from __future__ import annotations

import re
import warnings
from typing import Any

from ..errors import BackendError, UserError

GPU_FAILED = "use the CPU, or start this program again"
"""What to do when a GPU fails in mid-run, for the end of a sentence."""
_PYCUDA_MISSING = (
    "pycuda is not installed; install it with: pip install pycuda, which compiles it and needs CUDA's nvcc on PATH "
    "(JetPack has it in /usr/local/cuda/bin)."
)


def load_driver() -> Any:
    """The module pycuda.driver, initialised.

    Raises UserError when pycuda is not installed, BackendError when there is no NVIDIA driver or it cannot be used.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an older driver it warns before it raises
            import pycuda.driver as driver
    except ModuleNotFoundError as error:
        raise UserError(_PYCUDA_MISSING) from error
    except ImportError as error:
        raise BackendError(_unloadable(first_line(error))) from error
    try:
        driver.init()
    except driver.Error as error:
        raise BackendError(
            f"the NVIDIA driver does not start ({first_line(error)}); check it with nvidia-smi, or use the CPU."
        ) from error
    _check_driver(driver.get_driver_version(), driver.get_version())
    return driver


def first_line(error: BaseException) -> str:
    """What an error says in its first line, without full stop, for the end of a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(" .-")


def open_device(driver: Any, index: int) -> Any:
    """pycuda's device number `index`. Raises BackendError where there is none."""
    count = driver.Device.count()
    if not 0 <= index < count:
        raise BackendError(f"there is no GPU {index}: the driver shows {count}; use the CPU or another index.")
    return driver.Device(index)


def _unloadable(reason: str) -> str:
    if "libcuda.so" in reason:
        return f"there is no NVIDIA driver here, pycuda cannot be loaded ({reason}); install the driver or use the CPU."
    if re.search("undefined symbol: cu[A-Z]", reason):
        return (
            f"the NVIDIA driver is older than the CUDA that pycuda was compiled with ({reason}); update the driver, or "
            "compile pycuda with the older CUDA: pip install --force-reinstall --no-cache-dir pycuda"
        )
    return (
        f"pycuda is installed but cannot be loaded ({reason}); compile it again with this machine's CUDA on PATH: "
        "pip install --force-reinstall --no-cache-dir pycuda"
    )


def _check_driver(driver: int, toolkit: tuple[int, int, int]) -> None:
    """Refuse a driver of an older major version; within one, a driver takes what newer toolkits compile.

    https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
    """
    if driver // 1000 < toolkit[0]:
        raise BackendError(
            f"the NVIDIA driver supports CUDA {version_text(driver)}, pycuda was compiled with CUDA "
            f"{toolkit[0]}.{toolkit[1]}; update the driver, or compile pycuda with the older CUDA: "
            "pip install --force-reinstall --no-cache-dir pycuda"
        )


def version_text(number: int) -> str:
    """12040 → `12.4`, as the driver writes CUDA versions."""
    return f"{number // 1000}.{number % 1000 // 10}"
