"""The machine that was measured: in a few words for a table, in full for a report that others must be able to judge.

Everything is read from files that Linux and the boards document; what cannot be read is None, never guessed.
proc(5), cgroups(7); https://docs.kernel.org/admin-guide/pm/cpufreq.html; https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fcnedge.runtime.cores import usable_cores

_PACKAGES = (
    *("fcnedge", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "opencv-python", "opencv-python-headless"),
    *("tensorrt", "tensorrt-rtx", "pycuda"),
)
_MODULES = {"cv2": "opencv", "tensorrt": "tensorrt"}
"""What JetPack brings without telling pip: read from a module that is already loaded, under this name."""
_UNLIMITED_BYTES = 1 << 60
"""Version 1 of cgroups spells "no limit" as a number just below 2^63."""


@dataclass(frozen=True)
class MachineFacts:
    """What a latency depends on besides the program.

    cpu: its model name. cores: logical ones, of the machine; usable_cores: those that this process may run on;
    container_cores: how many cores' worth of time a container allows, None where nothing limits it. memory_bytes,
    container_memory_bytes: likewise. board: a device tree's own name, "NVIDIA Jetson Orin Nano …". power_mode: what
    nvpmodel has set. governors: of the CPU clocks, each once. min_mhz, max_mhz: what the clocks may be. virtual: a
    hypervisor is below. gpus: names as the driver gives them. packages: version by name.
    """

    cpu: str
    architecture: str
    cores: int
    usable_cores: int
    container_cores: float | None
    memory_bytes: int | None
    container_memory_bytes: int | None
    board: str | None
    system_release: str | None
    power_mode: str | None
    kernel: str
    governors: tuple[str, ...]
    min_mhz: float | None
    max_mhz: float | None
    virtual: bool | None
    gpus: tuple[str, ...]
    gpu_driver: str | None
    python: str
    packages: dict[str, str]

    @property
    def title(self) -> str:
        """`Intel(R) Xeon(R) Processor, 2 cores`, with the GPUs where there are any."""
        return ", ".join((self.board or self.cpu, f"{self.cores} cores", *self.gpus))


def machine() -> str:
    """Processor model and core count."""
    return f"{_cpu_name(Path('/'))}, {os.cpu_count()} cores"


def machine_facts(root: Path = Path("/"), *, gpus: tuple[str, ...] = (), gpu_driver: str | None = None) -> MachineFacts:
    """Look at this machine. root: where /proc, /sys and /etc lie. gpus, gpu_driver: from who has asked the driver."""
    flags = _cpuinfo(root, "flags")
    clocks = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    return MachineFacts(
        cpu=_cpu_name(root),
        architecture=platform.machine(),
        cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        container_cores=_container_cores(root),
        memory_bytes=_memory_bytes(root),
        container_memory_bytes=_container_memory_bytes(root),
        board=read_word(root / "proc/device-tree/model"),
        system_release=_release(root),
        power_mode=read_word(root / "var/lib/nvpmodel/status"),
        kernel=f"{platform.system()} {platform.release()}",
        governors=tuple(
            sorted({word for clock in clocks if (word := read_word(clock / "scaling_governor")) is not None})
        ),
        min_mhz=_mhz(min, [clock / "cpuinfo_min_freq" for clock in clocks]),
        max_mhz=_mhz(max, [clock / "cpuinfo_max_freq" for clock in clocks]),
        virtual=None if flags is None else "hypervisor" in flags.split(),
        gpus=gpus,
        gpu_driver=gpu_driver,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        packages=_packages(),
    )


def read_word(path: Path) -> str | None:
    """The text of a small file of /proc or /sys without the ends that C leaves; None where it cannot be read."""
    try:
        return path.read_bytes().strip(b"\0 \t\r\n").decode("utf-8", errors="replace") or None
    except OSError:
        return None


def read_number(path: Path) -> int | None:
    """The whole number in a file of /proc or /sys; None where it cannot be read or is none."""
    word = read_word(path)
    try:
        return None if word is None else int(word)
    except ValueError:
        return None


def _cpu_name(root: Path) -> str:
    """From /proc/cpuinfo; Arm's has no model name, and then the board's or the kernel's word must do."""
    return _cpuinfo(root, "model name") or platform.processor() or platform.machine()


def _cpuinfo(root: Path, key: str) -> str | None:
    text = read_word(root / "proc/cpuinfo") or ""
    pairs = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for name, _, value in pairs if name.strip() == key), None)


def _memory_bytes(root: Path) -> int | None:
    for line in (read_word(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _container_cores(root: Path) -> float | None:
    """cpu.max of version 2 ("200000 100000", "max 100000"), cpu.cfs_quota_us of version 1 (-1: no limit)."""
    for folder in _cgroup_folders(root, ""):
        words = (read_word(folder / "cpu.max") or "").split()
        if len(words) == 2:
            return None if words[0] == "max" else int(words[0]) / int(words[1])
    for folder in _cgroup_folders(root, "cpu"):
        quota, period = (read_number(folder / f"cpu.cfs_{word}_us") for word in ("quota", "period"))
        if quota is not None and period:
            return quota / period if quota > 0 else None
    return None


def _container_memory_bytes(root: Path) -> int | None:
    for folder in _cgroup_folders(root, ""):
        word = read_word(folder / "memory.max")
        if word is not None:
            return None if word == "max" else int(word)
    for folder in _cgroup_folders(root, "memory"):
        limit = read_number(folder / "memory.limit_in_bytes")
        if limit is not None:
            return limit if limit < _UNLIMITED_BYTES else None
    return None


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """Where a controller's files may lie, this process's own group first; controller "": version 2, which has one tree.

    Inside a container the path in /proc/self/cgroup may be the host's; then its own group is what is mounted.
    """
    mounted = root / "sys/fs/cgroup" / controller
    for line in (read_word(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return [mounted / path.lstrip("/"), mounted]
    return [mounted]


def _release(root: Path) -> str | None:
    """The first line of Jetson Linux's own file, else the distribution's name."""
    tegra = read_word(root / "etc/nv_tegra_release")
    if tegra is not None:
        return tegra.splitlines()[0].lstrip("# ")
    for line in (read_word(root / "etc/os-release") or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return None


def _mhz(choose: Callable[[list[float]], float], paths: list[Path]) -> float | None:
    values = [value / 1000 for path in paths if (value := read_number(path)) is not None]
    return choose(values) if values else None


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # noqa: PERF203 - a dozen names
            continue
    for module, name in _MODULES.items():
        version = getattr(sys.modules.get(module), "__version__", None)
        if version is not None and not any(known.startswith(name) for known in found):
            found[name] = str(version)
    return found
