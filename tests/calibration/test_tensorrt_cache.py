"""TensorRT's calibration cache: bytes worked out by hand, and everything that is not one refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.calibration.ranges import TensorRange
from fcnedge.calibration.tensorrt_cache import read_cache, write_cache
from fcnedge.runtime.errors import UserError

# sign 0 | exponent + 127 in 8 bits | 23 bits of fraction, by hand:
BY_HAND = {
    127.0: "3f800000",  # step 1 = 1.0 * 2^0
    63.5: "3f000000",  # step 1/2 = 1.0 * 2^-1
    190.5: "3fc00000",  # step 3/2 = 1.1b * 2^0
    1.0: "3c010204",  # step 1/127 = 1.0078740157 * 2^-7, 0.0078740157 * 2^23 = 66052 = 0x010204
}
# TensorRT 8.6.1's own, from the issue that tensorrt_cache.py names; 3c010a14 is (2048 + 1/2) / 2048 / 127
REAL = "TRT-8601-EntropyCalibration2\nimages: 3b66eddc\n168: 3dc6cf6e\n169: 3c010a14\n"


def ranges(**thresholds: float) -> dict[str, TensorRange]:
    return {name: TensorRange(-value, value, value) for name, value in thresholds.items()}


@pytest.mark.parametrize(("threshold", "digits"), BY_HAND.items())
def test_step_is_big_endian_hex(threshold, digits):
    assert write_cache(ranges(scores=threshold)) == f"TRT-8502-EntropyCalibration2\nscores: {digits}\n"
    assert read_cache(f"TRT-8502-EntropyCalibration2\nscores: {digits}\n").steps == {
        "scores": pytest.approx(threshold / 127, rel=6e-8)
    }


def test_whole_file_in_the_graphs_order():
    tensors = {"stem/Relu6:0": TensorRange(0.0, 6.0, 63.5), "a b": TensorRange(-1.0, 3.0, 127.0)}
    text = write_cache(tensors, 100300)
    assert text == "TRT-100300-EntropyCalibration2\nstem/Relu6:0: 3f000000\na b: 3f800000\n"
    cache = read_cache(text, 100300)
    assert (cache.version, cache.steps) == (100300, {"stem/Relu6:0": 0.5, "a b": 1.0})


def test_cache_that_tensorrt_wrote_is_read():
    cache = read_cache(REAL)
    assert (cache.version, list(cache.steps)) == (8601, ["images", "168", "169"])
    assert cache.steps["169"] == pytest.approx(2048.5 / 2048 / 127, rel=1e-7)


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], include_characters=" :/"), min_size=1),
        st.floats(1e-30, 3e38),
        max_size=5,
    )
)
def test_what_is_written_is_read(thresholds):
    steps = read_cache(write_cache(ranges(**thresholds)), 8502).steps
    assert steps == {name: pytest.approx(value / 127, rel=6e-8) for name, value in thresholds.items()}
    assert list(steps) == list(thresholds)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf, -1.0, 1e-45, 1e-320, 1e300])
def test_range_without_a_step_is_refused_by_name(value):
    with pytest.raises(UserError, match=r"the tensor 'dead' has the range .*, which gives no int8 step"):
        write_cache({"dead": TensorRange(0.0, 0.0, value)})


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb", "a\tb", "a\u2028b"])
def test_name_that_does_not_fit_on_its_line_is_refused(name):
    with pytest.raises(UserError, match="cannot be written to a calibration cache; rename it in the graph"):
        write_cache({name: TensorRange(-1.0, 1.0, 1.0)})


@pytest.mark.parametrize("version", [0, 11, -8502, 999, 110000, 110401, 10**7])
def test_release_without_caches_is_refused(version):
    with pytest.raises(UserError, match=f"^{version} is not a TensorRT release that reads calibration caches"):
        write_cache(ranges(a=1.0), version)


@pytest.mark.parametrize(
    "header",
    ["", "TRT-8502-MinMaxCalibration", "TRT-8502-EntropyCalibration", "TRT-x-EntropyCalibration2", " " + REAL, "\x00"],
)
def test_other_header_is_refused(header):
    with pytest.raises(UserError, match="a calibration cache begins with TRT-8502-EntropyCalibration2 or alike, this"):
        read_cache(f"{header}\na: 3f800000\n")


def test_cache_of_another_release_is_refused():
    with pytest.raises(UserError, match=r"is of TensorRT 8601, not 8502; write another with fcn-calibrate ranges"):
        read_cache(REAL, 8502)


@pytest.mark.parametrize(
    "line",
    ["a", "a:3f800000", "a: ", ": 3f800000", "a: 3f80000", "a: 3f8000000", "a: 3F800000", "a: 3f80000g", "a: 1.0", ""],
)
def test_malformed_line_is_refused_with_its_number(line):
    with pytest.raises(UserError, match=r"line 3 of the calibration cache is .*, not a name, a colon and 8 hex"):
        read_cache(f"TRT-8502-EntropyCalibration2\nb: 3f800000\n{line}\nc: 3f800000\n")


@pytest.mark.parametrize("digits", ["00000000", "80000000", "bf800000", "7f800000", "7fc00000", "ff800000"])
def test_step_that_is_none_is_refused(digits):
    with pytest.raises(UserError, match="line 2 of the calibration cache gives 'a' the step"):
        read_cache(f"TRT-8502-EntropyCalibration2\na: {digits}\n")


def test_name_that_comes_twice_is_refused():
    with pytest.raises(UserError, match="line 3 of the calibration cache names 'a' again"):
        read_cache("TRT-8502-EntropyCalibration2\na: 3f800000\na: 3f000000\n")
