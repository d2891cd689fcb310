"""The timing table of each GPU backend and precision, in the summary: `fcn-bench latency` as users run it."""

from __future__ import annotations

import pytest

from fcnedge.benchmarks.latency import LatencyOptions, measure_latency
from fcnedge.runtime import UserError, open_source

pytestmark = pytest.mark.gpu
FRAMES = 500


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx", "onnxruntime_cuda"])
def test_every_stage_has_its_time(opened, bundle, tell, name, precision):
    opened(name, precision)  # skips where it cannot be
    try:
        open_source("demo://clip").close()
    except UserError as error:
        pytest.skip(str(error))
    report = measure_latency(LatencyOptions(str(bundle.path), name, precision, frames=FRAMES))
    stages = report.stages
    for stage in ("preprocess", "h2d", "compute", "d2h", "head", "end_to_end"):
        assert stages[stage] is not None, stage
    assert stages["compute"].p50_ms < stages["end_to_end"].p50_ms
    tell(f"{name} {precision}\n{report.text()}")
