"""The kernels on a score grid that is not the input's sides by the stride, as a network padded by 100 pixels has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fcnedge.runtime.cuda.geometry import labels_launch
from fcnedge.runtime.head import BilinearHead


@pytest.mark.parametrize(
    ("stride", "offset", "points"),
    [(8, (11.0, 11.0), (10, 14)), (16, (23.0, 20.0), (6, 8)), (32, (15.0, -3.0), (3, 4)), (8, (0.0, 0.0), (8, 12))],
)
@pytest.mark.parametrize("frame", [(64, 96), (128, 48), (32, 192)])
def test_kernel_reads_the_whole_grid(stride, offset, points, frame, cpu_kernels, manifest_of):
    """Integer scores and dyadic positions: sums in float32 and float64 are exact, so are ties."""
    manifest = manifest_of((64, 96), classes=5, stride=stride, offset=offset)
    manifest = replace(manifest, head=replace(manifest.head, points=points))
    scores = np.random.default_rng(stride).integers(-9, 10, (5, *points)).astype(np.float32)
    expected = BilinearHead(manifest.head.geometry).labels(scores, frame, (64, 96))
    found = cpu_kernels.labels(labels_launch(manifest, frame, np.float32), scores, frame)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected)) > 1
