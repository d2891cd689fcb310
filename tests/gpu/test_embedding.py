"""Beside another CUDA user in one process, and in a process whose GPU fails."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fcnedge.runtime import Segmenter

pytestmark = pytest.mark.gpu


def test_other_users_context_stays_current_and_works(device, available, bundle, pictures):
    """A context of its own, made before, with memory in it, current on this thread all the time."""
    import pycuda.driver as driver

    theirs = driver.Device(0).make_context()
    try:
        memory, numbers = driver.mem_alloc(4000), np.arange(1000, dtype=np.float32)
        driver.memcpy_htod(memory, numbers)
        with Segmenter(bundle, available, "fp16") as segment:
            assert driver.Context.get_current() == theirs
            masks = [segment(picture) for picture in pictures[:3]]
            assert driver.Context.get_current() == theirs
            back = np.empty_like(numbers)
            driver.memcpy_dtoh(back, memory)
            assert (back == numbers).all()
        assert driver.Context.get_current() == theirs
        assert len(masks) == 3
        memory.free()
    finally:
        theirs.pop()
        theirs.detach()


def test_torch_beside_it_keeps_its_results(device, available, bundle, pictures):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    numbers = torch.arange(1_000_000, device="cuda", dtype=torch.float64)
    expected = float(numbers.square().sum())
    with Segmenter(bundle, available, "fp16") as segment:
        for picture in pictures:
            segment(picture)
            assert float(numbers.square().sum()) == expected


FAILING = """
import logging, sys
import numpy as np
from fcnedge.runtime import BackendError, Segmenter
logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
name, bundle, fallback = sys.argv[1:]
frame = np.full((300, 400, 3), 90, np.uint8)
segment = Segmenter(bundle, name, "fp16", fallback=fallback if fallback != "none" else None)
segment(frame)
pipeline = segment.backend._pipeline
try:
    with pipeline._device.current():  # a kernel that writes where nothing is: the context is lost with it
        wrong = np.uintp(64), np.int32(1200), np.uintp(64), *[np.int32(side) for side in (300, 400, 384, 384, 384, 384)]
        pipeline._kernels.launch("preprocess", wrong, (32, 8, 1), (12, 48, 1), pipeline._stream)
        pipeline._stream.synchronize()
except BackendError as error:
    print("LOST", error)
try:
    print("MASK", segment(frame).shape, segment.backend.name)
except BackendError as error:
    print("ERROR", error)
segment.close()
print("END")
"""


@pytest.mark.parametrize("fallback", ["cpu", "none"])
def test_process_survives_a_lost_gpu(device, available, bundle, fallback):
    """In a process of its own, for a lost context takes all that is in it."""
    command = [sys.executable, "-c", FAILING, available, str(bundle.path), fallback]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].startswith("LOST")
    assert lines[-1] == "END"
    if fallback == "cpu":
        assert any(line.endswith("Going on with the CPU.") for line in lines)
        assert any(line.startswith("MASK (300, 400)") for line in lines)
    else:
        assert any(line.startswith("ERROR") for line in lines)
