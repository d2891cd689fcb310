"""Which of many are chosen."""

from __future__ import annotations

import pytest

from fcnedge.calibration.spacing import evenly_spaced


@pytest.mark.parametrize(
    ("count", "chosen"), [(0, []), (1, [0]), (2, [0, 3]), (3, [0, 2, 4]), (7, list(range(7))), (150, list(range(7)))]
)
def test_choice_is_evenly_spaced_and_never_takes_one_twice(count, chosen):
    assert evenly_spaced(range(7), count) == chosen
