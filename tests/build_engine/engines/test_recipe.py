"""Which way a precision is asked of each release, by its features alone."""

from __future__ import annotations

import pytest

from fcnedge.build_engine.engines.library import Library
from fcnedge.build_engine.engines.recipe import Recipe, choose_recipe
from fcnedge.runtime.errors import UserError

TYPED, FLAGS, CACHE = "strongly typed", "builder flags", "calibration cache"
VERSIONS = ("8.5", "10.3", "10.13", "11.4")


@pytest.fixture
def library(stand_in):
    return lambda version: Library("tensorrt", stand_in(version).module)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("version", ["10.3", "10.13", "11.4"])
def test_precision_is_left_to_the_graph_from_tensorrt_10_on(library, version, precision):
    recipe = choose_recipe(library(version), precision, dla=False, calibration_cache=False)
    assert recipe == Recipe(precision, TYPED)
    assert recipe.strongly_typed


@pytest.mark.parametrize(("precision", "flags"), [("fp32", ()), ("fp16", ("FP16",)), ("int8", ("INT8", "FP16"))])
def test_flags_allow_the_precision_before(library, precision, flags):
    recipe = choose_recipe(library("8.5"), precision, dla=False, calibration_cache=False)
    assert recipe == Recipe(precision, FLAGS, flags)


@pytest.mark.parametrize("dla", [False, True])
@pytest.mark.parametrize("version", ["8.5", "10.3", "10.13"])
def test_calibration_cache_goes_with_the_untyped_graph(library, version, dla):
    recipe = choose_recipe(library(version), "int8", dla=dla, calibration_cache=True)
    assert recipe == Recipe("fp32", CACHE, ("INT8", "FP16"))


@pytest.mark.parametrize("version", ["8.5", "10.3", "10.13"])
def test_dla_takes_flags_and_a_cache_while_there_are_any(library, version):
    library = library(version)
    assert choose_recipe(library, "fp16", dla=True, calibration_cache=False) == Recipe("fp32", FLAGS, ("FP16",))
    assert choose_recipe(library, "int8", dla=True, calibration_cache=False).route == CACHE


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_dla_takes_the_typed_graph_when_there_are_none(library, precision):
    assert choose_recipe(library("11.4"), precision, dla=True, calibration_cache=False) == Recipe(precision, TYPED)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_cannot_be_is_refused(library, version):
    library = library(version)
    with pytest.raises(UserError, match="the DLA computes in FP16 and INT8, not in FP32"):
        choose_recipe(library, "fp32", dla=True, calibration_cache=False)
    with pytest.raises(UserError, match="a calibration cache gives INT8 ranges, but --precision is fp16"):
        choose_recipe(library, "fp16", dla=False, calibration_cache=True)


def test_tensorrt_11_has_no_use_for_a_cache(library):
    with pytest.raises(UserError, match=r"^TensorRT 11\.4\.0\.12 has no calibrators and cannot read a calibration"):
        choose_recipe(library("11.4"), "int8", dla=True, calibration_cache=True)
