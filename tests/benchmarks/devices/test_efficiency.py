"""The fitted numbers: found again where they are known, and checked against times that they were not fitted to."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fcnedge.benchmarks.devices import efficiency as module
from fcnedge.benchmarks.devices.efficiency import WIDER, efficiency, fit, predict_ms
from fcnedge.benchmarks.devices.published import published
from fcnedge.benchmarks.devices.validation import AIM, validate
from fcnedge.benchmarks.readme_numbers import ROOT

FITTED = ("maxwell", "pascal", "volta", "ampere")


def rows_of(architecture: str, use: str = "fit"):
    return [row for row in published() if row.use == use and row.device.architecture == architecture]


def test_a_known_share_is_found_again_and_an_outlier_does_not_move_it():
    rows = [replace(row, ms=predict_ms(row, 0.4)) for row in rows_of("maxwell")]
    assert fit(rows) == pytest.approx(0.4, rel=1e-9)
    assert fit([replace(rows[0], ms=1e3 * rows[0].ms), *rows[1:]]) == pytest.approx(0.4, rel=1e-9)


def test_a_time_shorter_than_its_kernels_take_is_only_fast():
    rows = [replace(row, ms=predict_ms(row, 0.4)) for row in rows_of("maxwell")]
    assert fit([replace(rows[0], ms=1e-6), *rows[1:]]) == pytest.approx(0.4, rel=1e-9)


def test_nearly_all_fitted_networks_lie_in_the_range_and_the_middle_one_is_hit():
    every = []
    for architecture in FITTED:
        found, rows = efficiency(architecture), rows_of(architecture)
        ratios = np.array([row.ms / predict_ms(row, found.share) for row in rows])
        assert found.networks == len(rows)
        assert 0 < found.share < 1
        assert np.median(ratios) == pytest.approx(1, abs=0.05)
        every += list((ratios >= found.low) & (ratios <= found.high))
    assert 0.9 <= np.mean(every) < 1


def test_most_of_what_was_held_back_lies_in_the_range():
    held = [row for row in validate().rows if row.use == "check"]
    inside = [row.low_ms <= row.published_ms <= row.high_ms for row in held]
    assert np.mean(inside) > 0.8
    assert f"{sum(inside)} of {len(held)} published times lie in the range" in validate().text()


def test_what_was_not_found_is_taken_from_a_neighbour_with_a_wider_range():
    base, other = efficiency("ampere"), efficiency("blackwell")
    assert (other.share, other.taken_from) == (base.share, "ampere")
    assert other.low == pytest.approx(base.low / WIDER)
    assert other.high == pytest.approx(base.high * WIDER)


def test_no_network_is_both_fitted_to_and_checked_against_on_one_board():
    fitted = {(row.network, row.device.name) for row in published() if row.use == "fit"}
    assert not fitted & {
        (row.network, row.device.name) for row in published() if row.use == "check" and row.device.name != "orin-nx"
    }
    assert {row.network for row in published() if row.use == "fit"}.isdisjoint({"vgg16", "resnet18", "fcn_resnet18"})


def test_every_time_that_was_held_back_is_predicted_within_what_was_aimed_at():
    found = validate()
    held = [row for row in found.rows if row.use == "check"]
    names = {(row.network, row.device, row.size) for row in held}
    assert {
        *{("vgg16", "nano", "224x224"), ("vgg16", "agx-xavier", "224x224")},
        *{("resnet18", "nano", "224x224"), ("resnet18", "agx-xavier", "224x224")},
        *{("fcn_resnet18", "nano", "320x320"), ("fcn_resnet18", "agx-xavier", "320x320")},
        *{("fcn_resnet18", "nano", "512x320"), ("fcn_resnet18", "agx-xavier", "512x320")},
    } <= names
    assert all(abs(row.predicted_ms / row.published_ms - 1) <= AIM for row in held)


def test_the_kernel_time_is_the_round_number_that_fits_best(monkeypatch):
    def misfit(kernel_ms: float) -> float:
        monkeypatch.setattr(module, "KERNEL_MS", kernel_ms)
        errors = []
        for rows in map(rows_of, FITTED):
            share = fit(rows)
            errors.append(np.mean([abs(math.log(predict_ms(row, share) / row.ms)) for row in rows]))
        return float(np.mean(errors))

    assert min((0.005, 0.01, 0.015, 0.02, 0.03), key=misfit) == 0.02


def test_every_published_time_has_a_source_and_every_one_left_out_a_reason():
    assert all(row.url.startswith("https://") and row.published for row in published())
    assert all((row.reason is not None) == (row.use == "left out") for row in published())
    assert {row.use for row in published()} == {"fit", "check", "left out"}


def test_page_names_this_table():
    assert "benchmarks/predict_page.py" in (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
