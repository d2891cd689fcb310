"""Names and sizes are checked before Keras is loaded, and a refusal says what would do."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.build_engine.models import ARCHITECTURES, Architecture
from fcnedge.build_engine.models.names import check_size
from fcnedge.runtime.errors import UserError


def test_architectures_are_named_by_stride_and_trunk():
    trunks = ("vgg16", "lite0", "lite1", "lite2")
    assert set(ARCHITECTURES) == {f"fcn{stride}s-{trunk}" for stride in (8, 16, 32) for trunk in trunks}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_name_survives_parsing(name):
    assert Architecture.parse(name).name == name


@pytest.mark.parametrize(
    "name", ["", "fcn8-vgg16", "fcn4s-vgg16", "fcn8s-resnet", "fcn8s-", "FCN8s-vgg16", "fcn8s-vgg16\n", "xfcn8s-lite0"]
)
def test_unknown_architecture_is_refused_with_the_known_ones(name):
    with pytest.raises(UserError) as caught:
        Architecture.parse(name)
    assert repr(name) in str(caught.value)
    assert all(known in str(caught.value) for known in ARCHITECTURES)


@pytest.mark.parametrize(
    ("trunk", "mean", "scale"),
    [("vgg16", (123.68, 116.779, 103.939), 1.0), ("lite0", (127.0, 127.0, 127.0), 1 / 128)],
)
def test_preprocessing_is_that_of_the_published_trunks(trunk, mean, scale):
    preprocessing = Architecture(8, trunk).preprocessing
    assert (preprocessing.channel_order, preprocessing.mean) == ("rgb", mean)
    assert preprocessing.scale == (scale,) * 3


@given(height=st.integers(1, 128), width=st.integers(1, 128))
def test_every_multiple_of_32_up_to_4096_is_a_size(height, width):
    check_size((32 * height, 32 * width))


@given(height=st.integers(-100, 10_000), width=st.integers(-100, 10_000))
def test_other_sizes_are_refused_with_the_nearest_that_fits(height, width):
    if all(side % 32 == 0 and 32 <= side <= 4096 for side in (height, width)):
        check_size((height, width))
        return
    with pytest.raises(UserError) as caught:
        check_size((height, width))
    assert f"size {width}x{height} does not fit" in str(caught.value)
    fits_width, fits_height = (int(side) for side in re.findall(r"try (\d+)x(\d+)\.", str(caught.value))[0])
    check_size((fits_height, fits_width))
    allowed = range(32, 4097, 32)
    for side, other in ((width, fits_width), (height, fits_height)):
        assert abs(side - other) == min(abs(side - candidate) for candidate in allowed)


def test_names_load_no_keras():
    code = "import sys, fcnedge.build_engine.models; sys.exit(bool({'keras', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
