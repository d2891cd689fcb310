"""INT8 ranges from a calibration cache, for TensorRT up to 10: the route that the DLA needs.

The cache is text: `TRT-8502-EntropyCalibration2`, then `tensor: hexadecimal float32` lines. The number is that of the
TensorRT it was written for; NVIDIA promises no portability between releases, so another number is refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fcnedge.calibration.tensorrt_cache import read_cache
from fcnedge.runtime.errors import UserError

from .library import Library


def read_calibration_cache(path: Path, library: Library) -> bytes:
    """The cache in `path`, which must be written for `library`. Raises UserError, one sentence."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name another --calibration-cache.") from error
    try:
        version = read_cache(data.decode()).version
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a calibration cache, it is no text; name another.") from None
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from error
    numbers = _version_numbers(library.version)
    if version not in numbers:
        raise UserError(
            f"{path} was written for TensorRT {version}, this is {library.title}; write it again with "
            f"fcn-calibrate ranges … --tensorrt {numbers[-1]}."
        )
    return data


def cache_calibrator(module: Any, cache: bytes) -> Any:
    """A `module.IInt8EntropyCalibrator2` that knows `cache` and has no pictures: a missing range ends the build."""

    class CacheCalibrator(module.IInt8EntropyCalibrator2):
        def __init__(self) -> None:
            module.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return cache

        def write_calibration_cache(self, cache: Any) -> None:
            return None

    return CacheCalibrator()


def _version_numbers(version: str) -> tuple[int, int]:
    """NV_TENSORRT_VERSION as TensorRT 10 counts (100300) and as 8 did (8502), last the one that fits the release."""
    major, minor, patch = (int(part) for part in re.findall(r"\d+", f"{version}.0.0")[:3])
    old, new = major * 1000 + minor * 100 + patch, major * 10000 + minor * 100 + patch
    return (new, old) if major < 10 else (old, new)
