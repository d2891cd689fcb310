"""Labels at the network's size become the frame's mask by the nearest one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.runtime import BackendError
from fcnedge.runtime.labels_head import LabelsHead


@given(
    frame=st.tuples(st.integers(1, 60), st.integers(1, 60)), content=st.tuples(st.integers(1, 24), st.integers(1, 32))
)
def test_each_pixel_takes_the_label_under_its_centre(frame, content):
    """In whole numbers: pixel i of n has its centre at (2 i + 1) / 2 n of the part that the frame takes."""
    output = np.random.default_rng(0).integers(0, 21, (1, 24, 32), np.uint8)
    mask = LabelsHead(21).labels(output, frame, content)
    rows, columns = ([(2 * i + 1) * m // (2 * n) for i in range(n)] for n, m in zip(frame, content, strict=True))
    assert (mask.shape, mask.dtype) == (frame, np.uint8)
    assert mask.tolist() == [[output[0, row, column] for column in columns] for row in rows]


def test_mask_is_the_callers_own():
    output = np.zeros((1, 8, 8), np.uint8)
    mask = LabelsHead(2).labels(output, (8, 8), (8, 8))
    mask[...] = 1
    assert not output.any()


def test_class_past_the_last_is_refused():
    with pytest.raises(
        BackendError, match=r"^the graph gives class 3, model\.json has 3 classes; rebuild the bundle\.$"
    ):
        LabelsHead(3).labels(np.full((1, 8, 8), 3, np.uint8), (8, 8), (8, 8))
