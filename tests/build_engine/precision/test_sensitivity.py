"""A network that INT8 hurts in one layer: sensitivity names it, and knows noise from loss."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fcnedge.build_engine.precision.evaluation import LabelledPictures, Measured
from fcnedge.build_engine.precision.placement import SCORE, STEM
from fcnedge.build_engine.precision.sensitivity import (
    LayerSensitivity,
    Sensitivity,
    measure_sensitivity,
    quantisable,
    rank_by_sqnr,
)
from fcnedge.calibration.ranges import Ranges, read_ranges
from fcnedge.calibration.voc import read_voc
from fcnedge.runtime import BilinearHead
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.head import HeadGeometry

ALL = {"stem", "mix", "loud", "ghost", "quiet", "score", "score_ghost"}


@pytest.fixture(scope="module")
def graph(loud_bundle: Path) -> Path:
    return loud_bundle / "model.fp32.onnx"


@pytest.fixture(scope="module")
def ranges(loud_bundle: Path) -> Ranges:
    return read_ranges(loud_bundle / "ranges.json")


@pytest.fixture(scope="module")
def pictures(graph: Path, voc_folder: Path) -> LabelledPictures:
    return LabelledPictures(
        graph, read_voc(voc_folder, "train"), (64, 64), "stretch", BilinearHead(HeadGeometry(4)), threads=1
    )


@pytest.fixture(scope="module")
def found(graph: Path, ranges: Ranges, pictures: LabelledPictures) -> Sensitivity:
    return measure_sensitivity(graph, ranges, pictures)


def test_the_layer_that_costs_accuracy_comes_first(found):
    by_name = {layer.layer: layer for layer in found.layers}
    assert found.layers[0].layer == "loud"
    assert by_name["loud"].alone.drop > 50, "nothing but background is left"
    assert by_name["loud"].alone.drop == pytest.approx(found.default.drop, abs=1)
    assert by_name["loud"].without.drop < 1
    for name in ALL - {"loud"}:
        assert abs(by_name[name].alone.drop) < 1
    for name in ("mix", "ghost", "quiet"):
        assert by_name[name].without.drop > 50, "sparing another layer does not help"


def test_noise_without_loss_comes_after_loss_and_before_silence(found):
    """The ghost's scores are the noisiest by far, and it wins nowhere."""
    sqnr = {layer.layer: layer.alone_sqnr_db for layer in found.layers}
    assert found.layers[1].layer == "ghost"
    assert min(sqnr, key=sqnr.__getitem__) == "ghost"
    assert [layer.alone_sqnr_db for layer in found.layers[1:]] == sorted(
        sqnr[layer] for layer in sqnr if layer != "loud"
    )


def test_layers_that_stay_in_float_by_default_are_measured_too(found):
    reasons = {layer.layer: layer.float_reason for layer in found.layers}
    assert reasons == dict.fromkeys(("mix", "loud", "ghost", "quiet")) | {
        "stem": STEM,
        "score": SCORE,
        "score_ghost": SCORE,
    }
    assert all((layer.without is None) == (layer.float_reason is not None) for layer in found.layers)


def test_top_measures_miou_of_the_noisiest_only(graph, ranges, pictures, found):
    few = measure_sensitivity(graph, ranges, pictures, top=4)
    noisiest = sorted(found.layers, key=lambda layer: layer.alone_sqnr_db)[:4]
    measured = {layer for layer in few.layers if layer.alone is not None}
    assert measured == set(noisiest)
    assert few.layers[0].layer == "loud"
    assert {layer.layer: layer.alone_sqnr_db for layer in few.layers} == {
        layer.layer: layer.alone_sqnr_db for layer in found.layers
    }


def test_excluded_layers_stay_in_float_throughout(graph, ranges, pictures):
    found = measure_sensitivity(graph, ranges, pictures, exclude=("loud",), top=1)
    assert {layer.layer for layer in found.layers} == ALL - {"loud"}
    assert found.default.drop < 1
    with pytest.raises(UserError, match=r"^the graph has no convolution dragon; it has stem, mix, loud, "):
        measure_sensitivity(graph, ranges, pictures, exclude=("dragon",))


def test_quantisable_and_their_order_by_noise(graph, ranges, pictures, found):
    assert quantisable(graph) == ("stem", "mix", "loud", "ghost", "quiet", "score", "score_ghost")
    assert quantisable(graph, {"mix"}) == ("stem", "loud", "ghost", "quiet", "score", "score_ghost")
    sqnr = {layer.layer: layer.alone_sqnr_db for layer in found.layers}
    order = rank_by_sqnr(graph, ranges, pictures, ("quiet", "ghost", "mix"))
    assert list(order) == ["ghost", *sorted(("quiet", "mix"), key=sqnr.__getitem__)]
    assert order == {name: sqnr[name] for name in order}


def layer(name: str, drop: float, error: float, sqnr_db: float) -> LayerSensitivity:
    return LayerSensitivity(name, None, sqnr_db, Measured(0.5, drop, error, sqnr_db, 1.0))


def test_only_drops_beyond_noise_outrank_the_scores():
    layers = [
        layer("quiet", 0.0, 0.1, 50.0),
        layer("lucky", 0.29, 0.1, 40.0),
        layer("noisy", 0.0, 0.1, 20.0),
        layer("bad", 0.31, 0.1, 45.0),
        layer("worse", 2.0, 0.1, 48.0),
        layer("unknown", 9.0, math.nan, 30.0),  # one picture tells no noise
        LayerSensitivity("unmeasured", None, 35.0),
    ]
    ranked = [each.layer for each in sorted(layers, key=lambda each: each.badness)]
    assert ranked == ["worse", "bad", "noisy", "unknown", "unmeasured", "lucky", "quiet"]


def test_table_shows_the_worst_and_counts_the_rest(found):
    lines = found.text(top=2).splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["loud", "INT8"], ["ghost", "INT8"]]
    assert lines[3] == "and 5 more, which cost less"
    assert lines[4].startswith("all default layers in INT8: SQNR ")
    assert lines[5].endswith("on 8 pictures, ± its standard error")
    assert len(found.text().splitlines()) == 1 + 7 + 2
