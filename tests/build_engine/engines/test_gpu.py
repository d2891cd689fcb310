"""The driver's answers, from a driver made of Python functions."""

from __future__ import annotations

from fcnedge.build_engine.engines.gpu import Gpu, current_gpu


class Driver:
    """libcuda with one GPU; `failing` names the function that gives CUDA_ERROR_NO_DEVICE."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing

    def __getattr__(self, name: str):
        def call(*arguments) -> int:
            if name == self.failing:
                return 100
            if name == "cuDeviceGetName":
                arguments[0].value = b"NVIDIA GeForce RTX 4070"
            if name == "cuDeviceGetAttribute":
                arguments[0]._obj.value = {75: 8, 76: 9}[arguments[1]]
            return 0

        return call


def test_driver_gives_name_and_compute_capability():
    assert current_gpu(Driver()) == Gpu("NVIDIA GeForce RTX 4070", "8.9")


def test_driver_without_gpu_gives_none():
    for function in ("cuInit", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute"):
        assert current_gpu(Driver(function)) is None


def test_this_machine_is_asked_without_an_error():
    found = current_gpu()
    assert found is None or float(found.compute_capability) >= 3
