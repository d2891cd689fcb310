"""NVML by a stand-in with the names of NVIDIA's reference, and for real as far as this machine goes."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from fcnedge.benchmarks.sensors.nvml import Nvml, open_nvml
from fcnedge.benchmarks.sensors.power import NvmlMeter, find_meters


class NvmlError(Exception):
    pass


class Library:
    """pynvml for one GPU. Names and units: NVML API Reference Guide."""

    NVMLError = NvmlError
    NVML_CLOCK_SM = 1
    energy_mj: int | None = 5_000_000
    power_mw = 70_000
    reasons = 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open = False

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"handle {index}"

    def nvmlDeviceGetName(self, handle: str) -> bytes:  # noqa: N802
        return f"GPU of {handle}".encode()  # bytes before pynvml 12

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "550.54.15"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if self.energy_mj is None:
            raise NvmlError("Not Supported")
        return self.energy_mj

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return self.power_mw

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        return {1: 1755}[kind]

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:  # noqa: N802
        return self.reasons

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:  # noqa: N802
        return [
            SimpleNamespace(pid=os.getpid(), usedGpuMemory=300 << 20),
            SimpleNamespace(pid=os.getpid() + 1, usedGpuMemory=9 << 30),
        ]


def test_state_is_in_megahertz_joules_and_watts():
    state = Nvml(Library(), 0).state()
    assert (state.mhz, state.joules, state.watts, state.slowdowns) == (1755.0, 5000.0, 70.0, ())


def test_memory_is_that_of_this_process_alone():
    assert Nvml(Library(), 0).used_bytes() == 300 << 20


def test_slowdowns_are_named_and_idling_is_none():
    library = Library()
    library.reasons = 0x01 | 0x04 | 0x40  # idle, power cap, hardware thermal slowdown
    assert Nvml(library, 0).state().slowdowns == ("gpu power cap", "gpu too warm (hardware)")


def test_energy_is_the_rise_of_the_gpus_own_counter(tmp_path):
    library = Library()
    (meter,), _ = find_meters(Nvml(library, 0), root=tmp_path)
    library.energy_mj = 5_012_500
    assert meter.read(3.0) == {"GPU of handle 0": 12.5}


def test_gpu_without_a_counter_is_summed_up_from_its_power():
    library = Library()
    library.energy_mj = None
    meter = NvmlMeter.find(Nvml(library, 0))
    assert meter is not None
    meter.read(1.0)
    library.power_mw = 90_000
    assert meter.read(3.0) == {"GPU of handle 0": 160.0}


def test_first_visible_gpu_is_asked(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert Nvml(Library()).name == "GPU of handle 3"


def test_library_is_let_go_of():
    library = Library()
    Nvml(library, 0).close()
    assert library.open is False


def test_machine_without_a_gpu_gives_the_reason():
    gpu, reason = open_nvml()
    if gpu is not None:
        gpu.close()
    assert (gpu is None) == bool(reason)
