"""What else happened while frames were timed: clocks, throttling, temperature, other programs, a hypervisor's theft.

proc(5) on /proc/stat; https://docs.kernel.org/admin-guide/pm/cpufreq.html; thermal_throttle in the kernel's
ABI/testing/sysfs-devices-system-cpu; oc*_event_cnt in the Jetson Linux Developer Guide under "Over-current".
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from ..machine import read_number, read_word
from .nvml import Nvml
from .power import EnergyMeter

_COOLS_WITHOUT_SLOWING = ("fan", "intel_powerclamp")


@dataclass(frozen=True)
class Reading:
    """The machine at one moment. frames: how many had been timed; seconds: perf_counter's.

    cpu_mhz: of each core; cpu: (busy, stolen, all) seconds since boot, over all cores; own_s: this process's CPU time;
    events: throttling counters by name; slowed: what held clocks down at that moment; joules: by rail.
    """

    frames: int
    seconds: float
    cpu_mhz: tuple[float, ...]
    cpu: tuple[float, float, float] | None
    own_s: float
    temperature_c: float | None
    gpu_mhz: float | None
    events: dict[str, int]
    slowed: tuple[str, ...]
    joules: dict[str, float]


@dataclass(frozen=True)
class Clock:
    """Megahertz over all cores and readings."""

    min_mhz: float
    median_mhz: float
    max_mhz: float


@dataclass(frozen=True)
class Conditions:
    """Between the first and the last reading. None where this machine does not tell.

    own_load, other_load, stolen: shares of all cores' time, 0..1: taken by this process, by all others (outside of a
    container too), and by the hypervisor for other machines. throttled: by what, empty for not at all; None where
    nothing would say so.
    """

    readings: int
    cpu_clock: Clock | None
    gpu_clock: Clock | None
    own_load: float | None
    other_load: float | None
    stolen: float | None
    hottest_c: float | None
    throttled: tuple[str, ...] | None


class Sensors:
    """Reads everything in a millisecond or so; to be asked between two frames. root: where /proc and /sys lie."""

    def __init__(self, meters: Sequence[EnergyMeter] = (), gpu: Nvml | None = None, root: Path = Path("/")):
        self._meters, self._gpu, self._root = meters, gpu, root
        cpus = root / "sys/devices/system/cpu"
        self._clocks = sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        self._counters = {
            **{
                f"{path.parents[1].name} {path.name.removesuffix('_count')}": path
                for path in sorted(cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
            },
            **{
                f"over-current {path.name.removesuffix('_event_cnt')}": path
                for path in sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt"))
            },
        }
        thermal = root / "sys/class/thermal"
        self._zones = sorted(thermal.glob("thermal_zone*/temp"))
        self._coolers = {
            f"{kind} ({folder.name})": folder / "cur_state"
            for folder in sorted(thermal.glob("cooling_device*"))
            if (kind := read_word(folder / "type")) and not any(word in kind for word in _COOLS_WITHOUT_SLOWING)
        }

    @property
    def tells_throttling(self) -> bool:
        """Whether anything here would say that clocks were held down."""
        return bool(self._counters or self._coolers or self._gpu)

    def read(self, frames: int) -> Reading:
        """The machine now. frames: how many have been timed so far."""
        seconds, times = perf_counter(), os.times()
        gpu = self._gpu.state() if self._gpu is not None else None
        heat = [value / 1000 for path in self._zones if (value := read_number(path)) is not None]
        return Reading(
            frames=frames,
            seconds=seconds,
            cpu_mhz=self._cpu_mhz(),
            cpu=_cpu_seconds(self._root),
            own_s=times.user + times.system,
            temperature_c=max(heat, default=None),
            gpu_mhz=gpu.mhz if gpu is not None else None,
            events={name: value for name, path in self._counters.items() if (value := read_number(path)) is not None},
            slowed=(
                *(name for name, path in self._coolers.items() if (read_number(path) or 0) > 0),
                *(gpu.slowdowns if gpu is not None else ()),
            ),
            joules={rail: joules for meter in self._meters for rail, joules in meter.read(seconds).items()},
        )

    def _cpu_mhz(self) -> tuple[float, ...]:
        """From cpufreq (kHz), else from /proc/cpuinfo, which virtual machines have too."""
        if self._clocks:
            return tuple(value / 1000 for path in self._clocks if (value := read_number(path)) is not None)
        lines = (read_word(self._root / "proc/cpuinfo") or "").splitlines()
        return tuple(float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz"))


def conditions(readings: Sequence[Reading], *, tells_throttling: bool) -> Conditions:
    """What the readings say together; at least one."""
    first, last = readings[0], readings[-1]
    heat = [reading.temperature_c for reading in readings if reading.temperature_c is not None]
    rises = [name for name, value in last.events.items() if value > first.events.get(name, value)]
    slowed = dict.fromkeys((*rises, *(name for reading in readings for name in reading.slowed)))
    own, other, stolen = _loads(first, last)
    return Conditions(
        readings=len(readings),
        cpu_clock=_clock([mhz for reading in readings for mhz in reading.cpu_mhz]),
        gpu_clock=_clock([reading.gpu_mhz for reading in readings if reading.gpu_mhz is not None]),
        own_load=own,
        other_load=other,
        stolen=stolen,
        hottest_c=max(heat, default=None),
        throttled=tuple(slowed) if tells_throttling else None,
    )


def _loads(first: Reading, last: Reading) -> tuple[float | None, float | None, float | None]:
    """(own, others', stolen) shares of all cores' time between two readings."""
    if first.cpu is None or last.cpu is None or last.cpu[2] <= first.cpu[2]:
        return None, None, None
    busy, stolen, whole = (now - before for now, before in zip(last.cpu, first.cpu, strict=True))
    own = last.own_s - first.own_s
    return min(1.0, own / whole), min(1.0, max(0.0, busy - own) / whole), min(1.0, max(0.0, stolen) / whole)


def _cpu_seconds(root: Path) -> tuple[float, float, float] | None:
    """(busy, stolen, all) from /proc/stat's first line; guest time is in user time already."""
    words = (read_word(root / "proc/stat") or "").partition("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu":
        return None
    user, nice, system, idle, waiting, irq, softirq, stolen = (
        int(word) / os.sysconf("SC_CLK_TCK") for word in words[1:9]
    )
    busy = user + nice + system + irq + softirq
    return busy, stolen, busy + idle + waiting + stolen


def _clock(mhz: Sequence[float]) -> Clock | None:
    return Clock(min(mhz), statistics.median(mhz), max(mhz)) if mhz else None
