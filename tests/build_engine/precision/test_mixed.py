"""The fewest exceptions: none where none is needed, exactly the layers that hurt, and a refusal with numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest

from fcnedge.build_engine.precision import place
from fcnedge.build_engine.precision.evaluation import LabelledPictures, int8_bytes
from fcnedge.build_engine.precision.mixed import MixedResult, TooManyExceptionsError, fewest_exceptions
from fcnedge.calibration.ranges import Ranges, TensorRange, read_ranges
from fcnedge.calibration.voc import VocSample, read_voc
from fcnedge.runtime import BilinearHead
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.head import HeadGeometry

SIZE, HEAD = (64, 64), BilinearHead(HeadGeometry(4))


@pytest.fixture(scope="module")
def samples(voc_folder: Path) -> list[VocSample]:
    return read_voc(voc_folder, "train")


def search(bundle: Path, samples: list[VocSample], ranges: Ranges | None = None, **other: object) -> MixedResult:
    ranges = read_ranges(bundle / "ranges.json") if ranges is None else ranges
    return fewest_exceptions(bundle / "model.fp32.onnx", ranges, samples, SIZE, "stretch", HEAD, threads=1, **other)


def clipped(bundle: Path, **thresholds: float) -> Ranges:
    """The bundle's ranges with deliberately wrong thresholds."""
    ranges = read_ranges(bundle / "ranges.json")
    wrong = {
        name: TensorRange(ranges.tensors[name].minimum, ranges.tensors[name].maximum, threshold)
        for name, threshold in thresholds.items()
    }
    return replace(ranges, tensors={**ranges.tensors, **wrong})


@pytest.mark.parametrize("elsewhere", ["fp16", "fp32"])
def test_the_layer_that_hurts_is_left_in_float_and_no_other(loud_bundle, samples, elsewhere):
    """By noise the order is ghost, mix, loud, quiet: 1, 2, 4 exceptions, then 3, and two of them are taken back."""
    found = search(loud_bundle, samples, max_drop=1.0, elsewhere=elsewhere)
    assert found.exclude == {"loud"}
    assert found.drop <= 1.0
    assert [trial.exclude for trial in found.tried] == [
        (),
        ("ghost",),
        ("ghost", "mix"),
        ("ghost", "loud", "mix", "quiet"),
        ("ghost", "loud", "mix"),
        ("ghost", "loud"),
        ("loud",),
    ]
    graph = loud_bundle / "model.fp32.onnx"
    pictures = LabelledPictures(graph, samples, SIZE, "stretch", HEAD, threads=1)
    placement = place(ir.load(graph), exclude=found.exclude)
    ranges = read_ranges(loud_bundle / "ranges.json").tensors
    again = pictures.measure(int8_bytes(graph, ranges, placement, elsewhere=elsewhere))
    assert (found.miou_fp32, found.drop) == (pictures.miou, again.drop)
    assert found.miou_int8 == pytest.approx(again.miou, rel=1e-12)


def test_nothing_is_excepted_where_the_limit_holds(loud_bundle, samples):
    found = search(loud_bundle, samples, max_drop=99.0)
    assert (found.exclude, len(found.tried)) == (frozenset(), 1)
    assert found.drop > 50


def test_what_the_caller_excludes_stays_excluded(loud_bundle, samples):
    found = search(loud_bundle, samples, max_drop=1.0, exclude=frozenset({"quiet"}))
    assert found.exclude == {"loud", "quiet"}
    assert all("quiet" in trial.exclude for trial in found.tried)
    found = search(loud_bundle, samples, max_drop=1.0, exclude=frozenset({"loud"}))
    assert (found.exclude, len(found.tried)) == ({"loud"}, 1)


def test_subset_counts_only_its_classes(loud_bundle, samples):
    whole, background = (search(loud_bundle, samples, max_drop=99.0, subset=subset) for subset in (None, (0,)))
    assert background.drop < whole.drop / 2, "background is what is left"


def test_two_wrong_layers_are_both_found(loud_bundle, samples):
    wrong = clipped(loud_bundle, loud=1e-3)
    assert search(loud_bundle, samples, wrong, max_drop=1.0).exclude == {"loud", "quiet"}


def test_search_ends_where_more_exceptions_are_needed_than_wanted(loud_bundle, samples):
    wrong = clipped(loud_bundle, loud=1e-3)  # takes loud and quiet, see above
    with pytest.raises(TooManyExceptionsError, match="needs more than 1 of 4 convolutions left in FP16") as caught:
        search(loud_bundle, samples, wrong, max_drop=1.0, max_exceptions=1)
    assert len(caught.value.layers) == 1
    assert f"({caught.value.layers[0]} and others)" in str(caught.value)
    assert search(loud_bundle, samples, wrong, max_drop=1.0, max_exceptions=4).exclude == {"loud", "quiet"}


def test_nothing_left_in_int8_is_refused_with_the_layers(loud_bundle, samples):
    wrong = clipped(loud_bundle, stem=1e-3, loud=1e-3)
    with pytest.raises(UserError) as caught:
        search(loud_bundle, samples, wrong, max_drop=1.0, exclude={"ghost"})
    text = str(caught.value)
    assert text.startswith("a drop of at most 1 points of mIoU needs all 3 convolutions left in FP16 (")
    assert all(name in text for name in ("mix", "loud", "quiet"))


@pytest.mark.parametrize("exclude", [(), ("mix", "loud", "ghost", "quiet")])
def test_limit_that_float16_itself_breaks_is_refused(make_loud_bundle, samples, tmp_path, exclude):
    """Scores around 3000: float16 has steps of 2 there, and the classes differ by less."""
    bundle = make_loud_bundle(tmp_path / "bundle", bias=3000.0)
    with pytest.raises(UserError, match=r"cannot be held on 8 pictures: .* even with every convolution left in FP16"):
        search(bundle, samples, max_drop=1.0, exclude=exclude)
    assert search(bundle, samples, max_drop=1.0, elsewhere="fp32").exclude == {"loud"}


@pytest.mark.parametrize("limit", [-0.1, float("nan"), float("inf")])
def test_limit_that_is_none_is_refused(loud_bundle, samples, limit):
    with pytest.raises(UserError, match=r"^the largest drop is .*; it must be a number of points, 0 or more"):
        search(loud_bundle, samples, max_drop=limit)


def test_no_pictures_are_refused(loud_bundle, make_loud_bundle: Callable[..., Path]):
    with pytest.raises(UserError, match=r"^there are no labelled pictures"):
        search(loud_bundle, [], max_drop=1.0)
