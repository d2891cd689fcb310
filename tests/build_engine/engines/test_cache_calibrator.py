"""Calibration caches that are not for this TensorRT, or not caches."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcnedge.build_engine.engines.cache_calibrator import cache_calibrator, read_calibration_cache
from fcnedge.build_engine.engines.library import Library
from fcnedge.runtime.errors import UserError

LINES = "-EntropyCalibration2\nplanes: 3c010a14\n"


@pytest.mark.parametrize(("version", "number"), [("8.5", 8502), ("10.3", 100300), ("10.13", 101303)])
def test_cache_of_this_release_is_read(stand_in, tmp_path: Path, version, number):
    (tmp_path / "c").write_text(f"TRT-{number}{LINES}", encoding="utf-8")
    library = Library("tensorrt", stand_in(version).module)
    assert read_calibration_cache(tmp_path / "c", library) == f"TRT-{number}{LINES}".encode()


def test_cache_of_another_release_is_refused_with_the_number_to_write(stand_in, tmp_path: Path):
    (tmp_path / "c").write_text(f"TRT-8502{LINES}", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_calibration_cache(tmp_path / "c", Library("tensorrt", stand_in("10.3").module))
    assert str(caught.value) == (
        f"{tmp_path}/c was written for TensorRT 8502, this is TensorRT 10.3.0; write it again with "
        "fcn-calibrate ranges … --tensorrt 100300."
    )


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"TRT-8502-MinMaxCalibration\n", b"TRT-8502-EntropyCalibration2\nx"]
)
def test_what_is_no_cache_is_refused_by_name(stand_in, tmp_path: Path, content):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(UserError, match=f"^{tmp_path}/c (is not a calibration cache|cannot be used)"):
        read_calibration_cache(tmp_path / "c", Library("tensorrt", stand_in("8.5").module))


def test_missing_cache_is_refused(stand_in, tmp_path: Path):
    with pytest.raises(UserError, match=r"c cannot be read \(No such file or directory\)"):
        read_calibration_cache(tmp_path / "c", Library("tensorrt", stand_in("8.5").module))


def test_calibrator_has_ranges_and_no_pictures(stand_in):
    calibrator = cache_calibrator(stand_in("8.5").module, b"ranges")
    assert calibrator.read_calibration_cache() == b"ranges"
    assert calibrator.get_batch_size() == 1
    assert calibrator.get_batch(["image"]) is None
    assert calibrator.write_calibration_cache(b"others") is None
    assert calibrator.read_calibration_cache() == b"ranges"
