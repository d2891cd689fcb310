"""Energy meters on files with the names that kernel and NVIDIA document, and on no files at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.benchmarks.sensors.power import Ina3221Meter, RaplMeter, find_meters, power_of

HWMON = Path("sys/class/hwmon")
POWERCAP = Path("sys/class/powercap")


def write(root: Path, files: dict[str, object]) -> None:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n", encoding="ascii")


def ina3221(root: Path, folder: str, rails: dict[str, tuple[int, int]]) -> None:
    """Channels as the hwmon driver has them. rails: name → (mV, mA)."""
    write(root, {f"{HWMON}/{folder}/name": "ina3221"})
    for number, (name, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        write(
            root,
            {
                f"{HWMON}/{folder}/in{number}_label": name,
                f"{HWMON}/{folder}/in{number}_input": millivolts,
                f"{HWMON}/{folder}/curr{number}_input": milliamperes,
            },
        )


def test_orin_nano_counts_the_boards_input_alone(tmp_path):
    ina3221(tmp_path, "hwmon1", {"VDD_IN": (5000, 1800), "VDD_CPU_GPU_CV": (5000, 600), "VDD_SOC": (5000, 400)})
    (meter,), reason = find_meters(None, root=tmp_path)
    assert (reason, meter.covers) == ("", "the whole board (VDD_IN)")
    assert meter.read(10.0) == {"VDD_IN": 0.0}
    assert meter.read(12.0) == {"VDD_IN": pytest.approx(18.0)}  # 9 W for two seconds


def test_agx_orin_adds_up_the_rails_of_both_sensors(tmp_path):
    ina3221(tmp_path, "hwmon2", {"VDD_GPU_SOC": (12000, 500), "VDD_CPU_CV": (12000, 250), "NC": (0, 0)})
    ina3221(tmp_path, "hwmon3", {"VIN_SYS_5V0": (5000, 1000)})
    write(tmp_path, {f"{HWMON}/hwmon4/name": "tmp451", f"{HWMON}/hwmon4/in1_input": 99})
    meter = Ina3221Meter.find(tmp_path)
    assert meter is not None
    meter.read(0.0)
    assert meter.read(1.0) == {"VDD_GPU_SOC": 6.0, "VDD_CPU_CV": 3.0, "VIN_SYS_5V0": 5.0}


def test_nano_with_jetpack_4_has_its_rails_in_iio(tmp_path):
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    write(tmp_path, {f"{folder}/rail_name_0": "POM_5V_IN", f"{folder}/in_power0_input": 4200})
    write(tmp_path, {f"{folder}/rail_name_1": "POM_5V_GPU", f"{folder}/in_power1_input": 900})
    meter = Ina3221Meter.find(tmp_path)
    assert meter is not None
    meter.read(0.0)
    assert meter.read(0.5) == {"POM_5V_IN": pytest.approx(2.1)}


def test_watts_that_change_are_summed_up_by_trapezoids(tmp_path):
    ina3221(tmp_path, "hwmon1", {"VDD_IN": (5000, 1000)})
    meter = Ina3221Meter.find(tmp_path)
    assert meter is not None
    meter.read(0.0)
    write(tmp_path, {f"{HWMON}/hwmon1/curr1_input": 3000})
    assert meter.read(2.0) == {"VDD_IN": pytest.approx(20.0)}  # from 5 to 15 W in two seconds


def rapl(root: Path, **microjoules: int) -> None:
    for number, (name, value) in enumerate(microjoules.items()):
        zone = f"{POWERCAP}/intel-rapl:{number}"
        write(root, {f"{zone}/name": name.replace("_", "-"), f"{zone}/energy_uj": value})
        write(root, {f"{zone}/max_energy_range_uj": 262143328850})


def test_rapl_counts_packages_and_leaves_their_parts_and_the_platform_out(tmp_path):
    rapl(tmp_path, package_0=5_000_000, psys=1, package_1=7_000_000)
    write(tmp_path, {f"{POWERCAP}/intel-rapl:0:0/name": "core", f"{POWERCAP}/intel-rapl:0:0/energy_uj": 3})
    meter, _ = RaplMeter.find(tmp_path)
    assert meter is not None
    rapl(tmp_path, package_0=6_500_000, psys=9, package_1=7_250_000)
    assert meter.read(1.0) == {"package-0": 1.5, "package-1": 0.25}


@given(st.lists(st.integers(0, 262143328850), min_size=1, max_size=6), st.integers(0, 262143328850))
def test_rapl_counter_that_runs_over_is_carried_on(tmp_path_factory, rises, start):
    root = tmp_path_factory.mktemp("rapl")
    rapl(root, package_0=start)
    meter, _ = RaplMeter.find(root)
    assert meter is not None
    counter, whole = start, 0
    for rise in rises:
        counter, whole = (counter + rise) % (262143328850 + 1), whole + rise
        rapl(root, package_0=counter)
        assert meter.read(0.0)["package-0"] == pytest.approx(whole / 1e6)


def test_counter_for_root_only_is_a_reason_and_no_number(tmp_path):
    write(tmp_path, {f"{POWERCAP}/intel-rapl:0/name": "package-0"})
    (tmp_path / POWERCAP / "intel-rapl:0" / "energy_uj").mkdir()  # cannot be read, whoever runs the test
    meters, reason = find_meters(None, root=tmp_path)
    assert meters == []
    assert reason == "intel-rapl:0/energy_uj may be read by root only, and no INA3221 sensor"


def test_machine_without_sensors_gives_nulls_and_the_reason(tmp_path):
    meters, reason = find_meters(None, root=tmp_path)
    power = power_of(meters, reason, (0, 0.0, {}), (100, 5.0, {}))
    assert (power.watts, power.joules_per_frame, power.reader, power.rails) == (None, None, None, {})
    assert power.reason == "no RAPL counters in /sys/class/powercap, and no INA3221 sensor"


def test_power_is_energy_between_readings_over_frames_between_them(tmp_path):
    rapl(tmp_path, package_0=1, package_1=2)
    meters, _ = find_meters(None, root=tmp_path)
    first, last = {"package-0": 1.0, "package-1": 2.0}, {"package-0": 31.0, "package-1": 12.0}
    power = power_of(meters, "", (50, 100.0, first), (250, 104.0, last))
    assert (power.watts, power.joules_per_frame, power.seconds) == (10.0, 0.2, 4.0)
    assert power.rails == {"package-0": 7.5, "package-1": 2.5}
    assert (power.reader, power.reason) == ("rapl", None)


def test_too_short_a_run_has_no_power(tmp_path):
    rapl(tmp_path, package_0=1)
    meters, _ = find_meters(None, root=tmp_path)
    power = power_of(meters, "", (7, 1.0, {"package-0": 1.0}), (7, 1.0, {"package-0": 1.0}))
    assert (power.watts, power.reason) == (None, "too few frames between two readings")
