"""TensorRT's own calibration cache, as text: the ranges for TensorRT up to 10 and for the DLA.

    TRT-8502-EntropyCalibration2
    image_centred: 3f987dc8

First the number of the TensorRT release (8.5.2 → 8502, 10.3.0 → 100300) and the calibrator; then, for each tensor, its
step of int8, threshold / 127, as the eight hexadecimal digits of a big-endian float32 (here 151.3 / 127). TensorRT
reads a cache instead of calling its calibrator, and matches tensors by the names that its ONNX parser keeps. NVIDIA
documents the calls (`readCalibrationCache`) and not the text; a cache of TensorRT 8.6.1's own stands in
https://github.com/ultralytics/ultralytics/issues/14121.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from fcnedge.runtime.errors import UserError

from .ranges import TensorRange
from .thresholds import INT8_MAX

DEFAULT_VERSION = 8502
FIRST_WITHOUT_CALIBRATORS = 110000
_HEADER = re.compile(r"TRT-(\d{4,6})-EntropyCalibration2")
_STEP = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True)
class CalibrationCache:
    """version: of TensorRT, such as 8502; steps: threshold / 127 by tensor, float32 values."""

    version: int
    steps: dict[str, float]


def check_version(version: int) -> None:
    """Raise UserError for a number that no TensorRT with calibrators has."""
    if not 1000 <= version < FIRST_WITHOUT_CALIBRATORS:
        raise UserError(
            f"{version} is not a TensorRT release that reads calibration caches; write 8.5.2 as 8502 and 10.3.0 as "
            "100300 (TensorRT 11 has no calibration caches)."
        )


def write_cache(tensors: Mapping[str, TensorRange], version: int = DEFAULT_VERSION) -> str:
    """The cache's text. tensors: as in Ranges.tensors.

    Raises UserError for a version without caches, a name that does not fit on its line, and a range that gives no
    step: zero, NaN, or beyond float32.
    """
    check_version(version)
    lines = [f"TRT-{version}-EntropyCalibration2"]
    for name, tensor in tensors.items():
        if not _fits_on_a_line(name):
            raise UserError(f"the tensor {name!a} cannot be written to a calibration cache; rename it in the graph.")
        lines.append(f"{name}: {_step_hex(name, tensor.threshold)}")
    return "\n".join(lines) + "\n"


def read_cache(text: str, version: int | None = None) -> CalibrationCache:
    """Read a cache's text. version: the one it must be of, None for any.

    Raises UserError for another header, another version, a line without name and step, a name that comes twice, and a
    step that is zero, negative, infinite or NaN.
    """
    first, *lines = text.split("\n")
    header = _HEADER.fullmatch(first)
    if header is None:
        raise UserError(
            f"a calibration cache begins with TRT-8502-EntropyCalibration2 or alike, this one with {first[:60]!a}; "
            "write it with fcn-calibrate ranges --cache."
        )
    if version is not None and int(header[1]) != version:
        raise UserError(
            f"the calibration cache is of TensorRT {header[1]}, not {version}; write another with "
            f"fcn-calibrate ranges --cache FILE --tensorrt {version}."
        )
    steps: dict[str, float] = {}
    for number, line in enumerate(lines, start=2):
        if line or number <= len(lines):  # the last line ends too
            name, step = _read_line(line, number)
            if name in steps:
                raise UserError(f"line {number} of the calibration cache names {name!a} again; write it anew.")
            steps[name] = step
    return CalibrationCache(int(header[1]), steps)


def _read_line(line: str, number: int) -> tuple[str, float]:
    name, colon, digits = line.rpartition(": ")  # TensorFlow's names hold colons themselves
    if not colon or not _fits_on_a_line(name) or not _STEP.fullmatch(digits):
        raise UserError(
            f"line {number} of the calibration cache is {line[:60]!a}, not a name, a colon and 8 hexadecimal digits; "
            "write it anew with fcn-calibrate ranges --cache."
        )
    (step,) = struct.unpack(">f", bytes.fromhex(digits))
    if not 0 < step < math.inf:
        raise UserError(f"line {number} of the calibration cache gives {name!a} the step {step}; write it anew.")
    return name, step


def _step_hex(name: str, threshold: float) -> str:
    try:
        digits = struct.pack(">f", threshold / INT8_MAX).hex()
    except OverflowError:
        digits = ""
    if not 0 < threshold < math.inf or digits in ("", "00000000"):
        raise UserError(
            f"the tensor {name!a} has the range {threshold:g}, which gives no int8 step: it was constant zero on all "
            "pictures, or the ranges are damaged; collect them on other pictures with fcn-calibrate ranges."
        )
    return digits


def _fits_on_a_line(name: str) -> bool:
    return bool(name) and name.isprintable()
