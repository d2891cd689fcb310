"""A run validates on as many pictures as it was asked to, spread over the whole list."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.build_engine.cli import TrainOptions
from fcnedge.build_engine.training.samples import evenly_spaced, training_samples, validation_samples
from fcnedge.calibration.voc import VocSample


def samples(count: int) -> list[VocSample]:
    return [VocSample(str(index), Path("picture"), Path("mask")) for index in range(count)]


def test_199_pictures_give_the_100_that_were_asked_for():
    """A whole step between them would take all 199."""
    assert len(evenly_spaced(samples(199), 100)) == 100


@given(st.integers(0, 500), st.integers(1, 500))
def test_exactly_as_many_as_asked_at_even_distances(length, count):
    places = [int(sample.name) for sample in evenly_spaced(samples(length), count)]
    assert len(places) == min(length, count)
    distances = {after - before for before, after in zip(places, [*places[1:], length], strict=False)}
    assert not distances or (min(distances) >= 1 and max(distances) - min(distances) <= 1)


@pytest.mark.parametrize(("asked", "names"), [(0, []), (2, [0, 1]), (3, [0, 1, 2]), (9, [0, 1, 2])])
def test_validation_takes_as_many_pictures_as_the_options_ask_for(voc_folder, asked, names):
    options = TrainOptions("fcn8s-lite0", (voc_folder,), Path("run"), val_images=asked)
    assert [sample.name for sample in validation_samples(options)] == [f"val_{name:06d}" for name in names]


def test_training_takes_all_pictures_of_all_folders(voc_folder):
    options = TrainOptions("fcn8s-lite0", (voc_folder, voc_folder.parent), Path("run"))
    assert [sample.name for sample in training_samples(options)] == 2 * [f"train_{index:06d}" for index in range(8)]
