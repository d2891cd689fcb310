"""NVIDIA's management library: name, memory, energy, clocks and throttling of a GPU, where `pynvml` is installed.

https://docs.nvidia.com/deploy/nvml-api/ – on a Jetson most of it is not supported, and each question may be refused.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import Any

# nvmlClocksEventReasons: those that make a busy GPU slower than it could be, by bit
_SLOWDOWNS = {
    0x04: "gpu power cap",
    0x08: "gpu hardware slowdown",
    0x20: "gpu too warm (software)",
    0x40: "gpu too warm (hardware)",
    0x80: "gpu power brake",
}
MISSING = "pynvml is not installed (pip install nvidia-ml-py)"


@dataclass(frozen=True)
class GpuState:
    """One look at the GPU; each value is None where the driver does not tell. joules: since the driver was loaded."""

    mhz: float | None
    joules: float | None
    watts: float | None
    used_bytes: int | None
    slowdowns: tuple[str, ...]


class Nvml:
    """One GPU through NVML. library: the module pynvml. Raises what pynvml raises when there is no GPU or driver."""

    def __init__(self, library: Any, index: int | None = None):
        self._library = library
        library.nvmlInit()
        self._handle = library.nvmlDeviceGetHandleByIndex(_first_visible() if index is None else index)
        self.name = _text(library.nvmlDeviceGetName(self._handle))
        self.driver = _text(library.nvmlSystemGetDriverVersion())

    def state(self) -> GpuState:
        """What the GPU says now."""
        library = self._library
        energy_mj = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        power_mw = self._ask("nvmlDeviceGetPowerUsage")
        mhz = self._ask("nvmlDeviceGetClockInfo", getattr(library, "NVML_CLOCK_SM", 1))
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:  # its name before driver 535
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return GpuState(
            mhz=None if mhz is None else float(mhz),
            joules=None if energy_mj is None else energy_mj / 1000,
            watts=None if power_mw is None else power_mw / 1000,
            used_bytes=self.used_bytes(),
            slowdowns=tuple(word for bit, word in _SLOWDOWNS.items() if (reasons or 0) & bit),
        )

    def used_bytes(self) -> int | None:
        """Memory of the GPU that this process holds; None where the driver does not tell it by process."""
        own = [
            process for process in self._ask("nvmlDeviceGetComputeRunningProcesses") or () if process.pid == os.getpid()
        ]
        used = [process.usedGpuMemory for process in own if process.usedGpuMemory is not None]
        return sum(used) if used else None

    def close(self) -> None:
        """Let go of the library."""
        self._library.nvmlShutdown()

    def _ask(self, name: str, *arguments: Any) -> Any:
        question = getattr(self._library, name, None)
        if question is None:
            return None
        try:
            return question(self._handle, *arguments)
        except self._library.NVMLError:
            return None


def open_nvml() -> tuple[Nvml | None, str]:
    """The first visible GPU, or None and one phrase that says why not."""
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None, MISSING
    try:
        return Nvml(pynvml), ""
    except pynvml.NVMLError as error:
        return None, f"NVML: {error}"


def _first_visible() -> int:
    """NVML counts all GPUs; CUDA the visible ones. A UUID in CUDA_VISIBLE_DEVICES is not looked up."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    return int(first) if first.isdigit() else 0


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
