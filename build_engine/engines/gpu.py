"""The GPU that TensorRT will compile on: asked of the driver itself, so that nothing but TensorRT need be installed.

Driver API: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the driver's stable C interface
_MAJOR, _MINOR = 75, 76
_NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """name: as the driver gives it, such as Orin; compute_capability: such as 8.7."""

    name: str
    compute_capability: str


def current_gpu(driver: Any = None) -> Gpu | None:
    """The first visible GPU; None without driver or GPU. driver: stands for libcuda in tests."""
    try:
        cuda = driver or ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    for call in (
        lambda: cuda.cuInit(0),
        lambda: cuda.cuDeviceGet(ctypes.byref(device), 0),
        lambda: cuda.cuDeviceGetName(name, _NAME_BYTES, device),
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device),
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device),
    ):
        if call() != 0:  # CUDA_SUCCESS
            return None
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}")
