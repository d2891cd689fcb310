"""Machine facts from files as Linux and Jetson Linux write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fcnedge.benchmarks.machine import machine, machine_facts


def write(root: Path, files: dict[str, object]) -> None:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n", encoding="ascii")


def test_jetson_is_named_with_its_board_release_power_mode_and_clocks(tmp_path):
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    write(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd\nCPU part\t: 0xd42",
            "proc/meminfo": "MemTotal:        7802392 kB\nMemFree: 1 kB",
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
            "var/lib/nvpmodel/status": "pmode:0000",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
            "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_min_freq": 115200,
            "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": 1510400,
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "schedutil",
        },
    )
    facts = machine_facts(tmp_path, gpus=("Orin",))
    assert facts.board == "NVIDIA Jetson Orin Nano Developer Kit"
    assert facts.title.startswith("NVIDIA Jetson Orin Nano Developer Kit, ")
    assert facts.title.endswith("cores, Orin")
    assert facts.system_release == "R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic"
    assert (facts.power_mode, facts.governors) == ("pmode:0000", ("schedutil",))
    assert (facts.min_mhz, facts.max_mhz, facts.memory_bytes) == (115.2, 1510.4, 7802392 * 1024)
    assert facts.virtual is None  # Arm's cpuinfo has no flags to say so


def test_virtual_machine_is_told_by_its_flags(tmp_path):
    write(tmp_path, {"proc/cpuinfo": "model name\t: Intel(R) Xeon(R) Processor\nflags\t\t: fpu avx hypervisor sse"})
    write(tmp_path, {"etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"'})
    facts = machine_facts(tmp_path)
    assert (facts.cpu, facts.virtual) == ("Intel(R) Xeon(R) Processor", True)
    assert facts.system_release == "Debian GNU/Linux 12 (bookworm)"


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({"sys/fs/cgroup/cpu.max": "150000 100000", "sys/fs/cgroup/memory.max": 1 << 30}, 1.5, 1 << 30),
        ({"sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/memory.max": "max"}, None, None),
        (
            {
                "proc/self/cgroup": "0::/user.slice/job",
                "sys/fs/cgroup/user.slice/job/cpu.max": "200000 100000",
                "sys/fs/cgroup/user.slice/job/memory.max": 5000,
            },
            2.0,
            5000,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/1\n1:cpu,cpuacct:/docker/1",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": 50000,
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
            },
            0.5,
            None,
        ),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1,
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": 1 << 29,
            },
            None,
            1 << 29,
        ),
        ({}, None, None),
    ],
    ids=["version 2", "version 2 without limits", "own group", "version 1", "version 1 without quota", "no cgroups"],
)
def test_limits_of_a_container_are_read(tmp_path, files, cores, memory):
    write(tmp_path, files)
    facts = machine_facts(tmp_path)
    assert (facts.container_cores, facts.container_memory_bytes) == (cores, memory)


def test_this_machine_has_a_name_and_the_packages_that_run_here():
    facts = machine_facts()
    assert facts.cpu in machine()
    assert facts.usable_cores <= facts.cores
    assert facts.packages["numpy"] == np.__version__
    assert "fcnedge" in facts.packages
