"""Clocks, loads, throttling and memory from files with the names that kernel and NVIDIA document."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from fcnedge.benchmarks.sensors.conditions import Clock, Sensors, conditions

CPU = Path("sys/devices/system/cpu")
TICKS = os.sysconf("SC_CLK_TCK")


def write(root: Path, name: str | Path, text: object) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", encoding="ascii")


def stat(root: Path, *seconds: float) -> None:
    """/proc/stat: user, nice, system, idle, iowait, irq, softirq, steal, guest and guest_nice in seconds."""
    write(root, "proc/stat", f"cpu  {' '.join(str(round(value * TICKS)) for value in seconds)}\ncpu0 1 2 3 4")


def test_loads_are_shares_of_all_cores_and_guests_count_once(tmp_path):
    stat(tmp_path, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    first = dataclasses.replace(Sensors(root=tmp_path).read(0), own_s=0.0)
    stat(tmp_path, 30, 10, 10, 30, 10, 1, 1, 8, 20, 5)
    last = dataclasses.replace(Sensors(root=tmp_path).read(10), own_s=25.0)
    found = conditions([first, last], tells_throttling=False)
    assert (found.own_load, found.other_load, found.stolen) == pytest.approx((0.25, 0.27, 0.08))


def test_own_time_that_the_system_has_not_counted_yet_is_not_others(tmp_path):
    stat(tmp_path, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    first = dataclasses.replace(Sensors(root=tmp_path).read(0), own_s=0.0)
    stat(tmp_path, 4, 0, 0, 6, 0, 0, 0, 0, 0, 0)
    last = dataclasses.replace(Sensors(root=tmp_path).read(1), own_s=4.01)
    assert conditions([first, last], tells_throttling=False).other_load == 0


def test_clocks_come_from_cpufreq_in_kilohertz(tmp_path):
    for core, khz in enumerate((1_510_400, 729_600)):
        write(tmp_path, CPU / f"cpu{core}" / "cpufreq" / "scaling_cur_freq", khz)
    write(tmp_path, "proc/cpuinfo", "cpu MHz : 1.0")
    found = conditions([Sensors(root=tmp_path).read(0)], tells_throttling=False)
    assert found.cpu_clock == Clock(729.6, 1120.0, 1510.4)


def test_virtual_machine_without_cpufreq_has_clocks_in_cpuinfo(tmp_path):
    write(tmp_path, "proc/cpuinfo", "processor : 0\ncpu MHz\t\t: 2300.000\nprocessor : 1\ncpu MHz\t\t: 2400.5")
    assert Sensors(root=tmp_path).read(0).cpu_mhz == (2300.0, 2400.5)


def test_throttling_counters_that_rise_are_named(tmp_path):
    package = CPU / "cpu0" / "thermal_throttle" / "package_throttle_count"
    write(tmp_path, package, 7)
    write(tmp_path, CPU / "cpu0" / "thermal_throttle" / "core_throttle_count", 3)
    write(tmp_path, "sys/class/hwmon/hwmon3/oc2_event_cnt", 15)
    write(tmp_path, "sys/class/hwmon/hwmon3/oc3_event_cnt", 37)
    sensors = Sensors(root=tmp_path)
    first = sensors.read(0)
    write(tmp_path, package, 9)
    write(tmp_path, "sys/class/hwmon/hwmon3/oc3_event_cnt", 38)
    found = conditions([first, sensors.read(9)], tells_throttling=sensors.tells_throttling)
    assert found.throttled == ("cpu0 package_throttle", "over-current oc3")


def test_cooling_device_at_work_is_throttling_and_a_fan_is_not(tmp_path):
    thermal = Path("sys/class/thermal")
    for number, (kind, state) in enumerate((("pwm-fan", 3), ("cpu-throttle-alert", 1), ("gpu-throttle-alert", 0))):
        write(tmp_path, thermal / f"cooling_device{number}" / "type", kind)
        write(tmp_path, thermal / f"cooling_device{number}" / "cur_state", state)
    write(tmp_path, thermal / "thermal_zone0" / "temp", 63625)
    write(tmp_path, thermal / "thermal_zone1" / "temp", 48000)
    sensors = Sensors(root=tmp_path)
    found = conditions([sensors.read(0)], tells_throttling=sensors.tells_throttling)
    assert found.throttled == ("cpu-throttle-alert (cooling_device1)",)
    assert found.hottest_c == 63.625


def test_machine_that_tells_nothing_gives_none_and_not_zero(tmp_path):
    sensors = Sensors(root=tmp_path)
    found = conditions([sensors.read(0), sensors.read(1)], tells_throttling=sensors.tells_throttling)
    assert found.cpu_clock is found.own_load is found.other_load is found.stolen is found.throttled is None


def test_this_machine_can_be_read():
    if not Path("/proc/stat").is_file():
        pytest.skip("no /proc on this system")
    reading = Sensors().read(3)
    assert reading.cpu is not None
    assert reading.cpu[2] > reading.cpu[0] > 0
    assert reading.frames == 3
