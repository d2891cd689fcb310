"""Energy meters: the Jetson's INA3221 sensors, Intel's and AMD's RAPL counters, NVML. And why there is none.

- INA3221, Jetson Linux 5 and later: hwmon's in*_label, in*_input (mV) and curr*_input (mA),
  https://docs.kernel.org/hwmon/ina3221.html. Before: iio's rail_name_* and in_power*_input (mW), in the Jetson Linux
  Developer Guide under "Software-Based Power Consumption Modeling".
- RAPL: /sys/class/powercap/intel-rapl:N/{name, energy_uj, max_energy_range_uj},
  https://docs.kernel.org/power/powercap/powercap.html. Only root may read energy_uj since CVE-2020-8694.
- NVML: the total energy of a GPU, or where there is no counter its power now.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..machine import read_number, read_word
from .nvml import Nvml

_WHOLE_BOARD = ("VDD_IN", "POM_5V_IN")
"""Rails that hold all others: of TX1, TX2, Xavier NX, Orin NX and Orin Nano; of Nano. AGX boards have none."""


@dataclass(frozen=True)
class Power:
    """Energy over the measured frames. All None, with the `reason`, where nothing can be read.

    reader: ina3221, rapl, nvml, or two with a plus. covers: what the rails are. rails: mean watts by name. watts:
    their sum; joules_per_frame: all energy between the first and the last reading over the frames between them, so
    that what the machine takes when idle is in it.
    """

    reader: str | None
    covers: str | None
    watts: float | None
    joules_per_frame: float | None
    seconds: float | None
    rails: dict[str, float]
    reason: str | None


class EnergyMeter(ABC):
    """name: of the reader. covers: which part of the machine. `read` gives joules by rail that only ever rise."""

    name: str
    covers: str

    @abstractmethod
    def read(self, seconds: float) -> dict[str, float]:
        """Joules since the meter was made, by rail. seconds: the time now, on any clock that only rises."""


class Ina3221Meter(EnergyMeter):
    """Watts of the Jetson's rails, summed up over time by trapezoids between readings.

    Where one rail is the board's input only that one counts, for the others are fed from it.
    """

    name = "ina3221"

    def __init__(self, rails: dict[str, tuple[Path, ...]]):
        whole = [rail for rail in _WHOLE_BOARD if rail in rails]
        self._rails = {rail: rails[rail] for rail in whole[:1] or rails}
        self.covers = f"the whole board ({whole[0]})" if whole else f"the sum of {', '.join(self._rails)}"
        self._joules = dict.fromkeys(self._rails, 0.0)
        self._before: tuple[float, dict[str, float]] | None = None

    @classmethod
    def find(cls, root: Path) -> Ina3221Meter | None:
        """The meter of this board; None where it has no such sensor."""
        rails: dict[str, tuple[Path, ...]] = {}
        for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
            if read_word(folder / "name") != "ina3221":
                continue
            for number in (1, 2, 3):  # a channel that is not wired is called NC
                label, voltage, current = (
                    folder / f"{kind}{number}_{what}"
                    for kind, what in (("in", "label"), ("in", "input"), ("curr", "input"))
                )
                name = read_word(label)
                if name and name != "NC" and None not in (read_number(voltage), read_number(current)):
                    rails[name] = (voltage, current)
        for folder in sorted((root / "sys/bus/i2c/drivers/ina3221x").glob("*/iio:device*")):
            for number in (0, 1, 2):
                name, power = read_word(folder / f"rail_name_{number}"), folder / f"in_power{number}_input"
                if name and name != "NC" and read_number(power) is not None:
                    rails[name] = (power,)
        return cls(rails) if rails else None

    def read(self, seconds: float) -> dict[str, float]:
        """As `EnergyMeter` has it."""
        watts = {rail: _watts(paths) for rail, paths in self._rails.items()}
        if self._before is not None:
            then, before = self._before
            for rail, value in watts.items():
                self._joules[rail] += (seconds - then) * (value + before[rail]) / 2
        self._before = seconds, watts
        return dict(self._joules)


class RaplMeter(EnergyMeter):
    """The energy counters of the processor packages; a counter that has run over is carried on."""

    name = "rapl"
    covers = "the processor packages, without memory, disks and power supply"

    def __init__(self, zones: Sequence[Path]):
        self._zones = {_zone_name(zone): zone for zone in zones}
        self._before = {name: _zone_uj(zone) for name, zone in self._zones.items()}
        self._joules = dict.fromkeys(self._zones, 0.0)

    @classmethod
    def find(cls, root: Path) -> tuple[RaplMeter | None, str]:
        """The meter, or None and why not."""
        zones = [
            zone
            for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
            if (read_word(zone / "name") or "").startswith("package-")
        ]
        if not zones:
            return None, "no RAPL counters in /sys/class/powercap"
        if any(read_number(zone / "energy_uj") is None for zone in zones):
            return None, f"{zones[0].name}/energy_uj may be read by root only"
        return cls(zones), ""

    def read(self, seconds: float) -> dict[str, float]:
        """As `EnergyMeter` has it."""
        for name, zone in self._zones.items():
            now = _zone_uj(zone)
            rise = now - self._before[name]
            if rise < 0:
                rise += (read_number(zone / "max_energy_range_uj") or 0) + 1
            self._joules[name] += max(0, rise) / 1e6
            self._before[name] = now
        return dict(self._joules)


class NvmlMeter(EnergyMeter):
    """The GPU's own counter, or its power now summed up over time where it has none."""

    name = "nvml"
    covers = "the GPU's board"

    def __init__(self, gpu: Nvml):
        self._gpu, self._joules = gpu, 0.0
        self._start = gpu.state().joules
        self._before: tuple[float, float] | None = None

    @classmethod
    def find(cls, gpu: Nvml | None) -> NvmlMeter | None:
        """The meter; None without a GPU, or with one that tells neither energy nor power."""
        if gpu is None:
            return None
        state = gpu.state()
        return None if state.joules is None and state.watts is None else cls(gpu)

    def read(self, seconds: float) -> dict[str, float]:
        """As `EnergyMeter` has it."""
        state = self._gpu.state()
        if self._start is not None and state.joules is not None:
            return {self._gpu.name: state.joules - self._start}
        watts = state.watts or 0.0
        if self._before is not None:
            self._joules += (seconds - self._before[0]) * (watts + self._before[1]) / 2
        self._before = seconds, watts
        return {self._gpu.name: self._joules}


def find_meters(gpu: Nvml | None, *, root: Path = Path("/")) -> tuple[list[EnergyMeter], str]:
    """What can be read here, and one phrase on why nothing can. gpu: where the network runs on it, else None.

    A Jetson's sensors see the whole board; elsewhere the processor's and the GPU's meters are added up.
    """
    board = Ina3221Meter.find(root)
    if board is not None:
        return [board], ""
    processor, reason = RaplMeter.find(root)
    meters: list[EnergyMeter] = [meter for meter in (processor, NvmlMeter.find(gpu)) if meter is not None]
    return meters, "" if meters else f"{reason}, and no INA3221 sensor"


def power_of(
    meters: Sequence[EnergyMeter],
    reason: str,
    first: tuple[int, float, dict[str, float]],
    last: tuple[int, float, dict[str, float]],
) -> Power:
    """What lies between two readings, each (frames so far, seconds, joules by rail)."""
    frames, seconds = last[0] - first[0], last[1] - first[1]
    if not meters or frames < 1 or seconds <= 0:
        return Power(None, None, None, None, None, {}, reason or "too few frames between two readings")
    joules = {rail: last[2][rail] - first[2][rail] for rail in last[2]}
    return Power(
        reader="+".join(meter.name for meter in meters),
        covers=" and ".join(meter.covers for meter in meters),
        watts=sum(joules.values()) / seconds,
        joules_per_frame=sum(joules.values()) / frames,
        seconds=seconds,
        rails={rail: value / seconds for rail, value in joules.items()},
        reason=None,
    )


def _watts(paths: tuple[Path, ...]) -> float:
    """One file: milliwatts. Two: millivolts and milliamperes."""
    values = [read_number(path) or 0 for path in paths]
    return values[0] / 1e3 if len(values) == 1 else values[0] * values[1] / 1e6


def _zone_name(zone: Path) -> str:
    return read_word(zone / "name") or zone.name


def _zone_uj(zone: Path) -> int:
    return read_number(zone / "energy_uj") or 0
