"""Boards and their peak rates, from data sheets: dense, without structured sparsity and without the DLA.

A board is an architecture, a number of multiprocessors (SM) and two clocks; its rates follow. Each figure has a source.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from fcnedge.runtime.errors import UserError

_NVIDIA = "https://developer.nvidia.com/embedded/jetson-modules"
_JETSONS = (
    "https://github.com/ultralytics/ultralytics/blob/01007503ffb223506d5b4b76d69e1e7145f49693/"
    "docs/en/guides/nvidia-jetson.md"
)
"""Lists cores, GPU clock and memory of six Jetsons side by side, from NVIDIA's own table."""
_THROUGHPUT = "https://forums.developer.nvidia.com/t/can-16-bits-and-32-bits-native-arithmetic-instructions-run-independently/108706"
"""Quotes table 2 of the CUDA C++ programming guide: results per clock and SM, 5.3 to 7.x."""
_ORIN_BRIEF = "http://mzph.cn/web/30785.shtml"
"""Quotes the AGX Orin technical brief: 16 SM, 5.3 FP32 TFLOPS, 170 sparse INT8 TOPS of the GPU alone."""
_ORIN_NANO = "https://www.brojogopalsapui.com/ai-foundations/sub_contents/AI_hardware/jetson_orin_nano_light.html"
_H200 = "https://itkb.uw.cz/2026/06/nvidia-h200-vs-b300-precisions-cores.html"
_H200_FP32 = "https://hmc-tech.com/gpu/nvidia-h100-vs-nvidia-h200-sxm-vs-nvidia-gb200"
_PCIE = "https://www.saulelectric.com/nvidia-h200.html"
_THOR = "https://torring.dev/blog/2026/rtx-spark-throttling/"
_THOR_SM = (
    "https://forums.developer.nvidia.com/t/clarification-on-cuda-core-and-tensor-core-counts-for-jetson-agx-thor/356355"
)
_TX2 = "https://hmc-tech.com/gpus/nvidia-tegra-x2-vs-nvidia-tegra-switch-2"


@dataclass(frozen=True)
class Architecture:
    """Multiply-adds per clock and SM, by precision: on CUDA cores, and on Tensor Cores (empty: it has none).

    A precision that is missing from both is not computed in: `computed_in` says what takes its place.
    like: the architecture whose efficiency is taken where no published measurement could be found for this one.
    """

    name: str
    cuda: dict[str, int]
    tensor: dict[str, int]
    sources: tuple[str, ...]
    like: str | None = None

    def computed_in(self, precision: str) -> str:
        """`precision`, or the next one up that the hardware multiplies in: INT8 on Maxwell is FP16."""
        order = ("int8", "fp16", "fp32")
        following = order[order.index(precision) :]
        return next(name for name in following if name in self.cuda or name in self.tensor)


ARCHITECTURES = {
    each.name: each
    for each in (
        Architecture("maxwell", {"fp32": 128, "fp16": 256}, {}, (_THROUGHPUT,)),
        Architecture("pascal", {"fp32": 128, "fp16": 256}, {}, (_THROUGHPUT,)),
        # 8 Tensor Cores of 64 FP16 multiply-adds; INT8 twice that: 11 TFLOPS and 22 TOPS on AGX Xavier.
        Architecture(
            "volta", {"fp32": 64, "fp16": 128, "int8": 256}, {"fp16": 512, "int8": 1024}, (_THROUGHPUT, _NVIDIA)
        ),
        # 85 dense INT8 TOPS on 16 SM at 1.3 GHz; FP16 half, TF32 (what TensorRT computes FP32 in) a quarter of that.
        Architecture(
            "ampere",
            {"fp32": 128, "fp16": 128, "int8": 512},
            {"fp32": 512, "fp16": 1024, "int8": 2048},
            (_ORIN_BRIEF,),
        ),
        Architecture(
            "hopper",
            {"fp32": 128, "fp16": 256, "int8": 512},
            {"fp32": 1024, "fp16": 2048, "int8": 4096},
            (_H200, _H200_FP32),
            like="ampere",
        ),
        # FP16 as published; INT8 taken as FP8, which the source gives and INT8 it does not.
        Architecture(
            "blackwell",
            {"fp32": 128, "fp16": 128, "int8": 512},
            {"fp32": 2048, "fp16": 4096, "int8": 8192},
            (_THOR,),
            like="ampere",
        ),
    )
}


@dataclass(frozen=True)
class Device:
    """One board in one power mode.

    sms: multiprocessors. clock: of the GPU, Hz. memory: bytes per second. link: bytes per second from the host in one
    direction, None where GPU and CPU share the memory. sources: figure → address.
    """

    name: str
    title: str
    mode: str
    architecture: str
    sms: int
    clock: float
    memory: float
    sources: dict[str, str]
    link: float | None = None

    @property
    def rates(self) -> Architecture:
        """What one of its multiprocessors does in a clock."""
        return ARCHITECTURES[self.architecture]

    def peak(self, precision: str, *, tensor: bool) -> float:
        """Operations (multiplications and additions) per second; on CUDA cores where it has no such Tensor Core."""
        rates = self.rates.tensor if tensor and precision in self.rates.tensor else self.rates.cuda
        return 2.0 * rates[precision] * self.sms * self.clock

    @property
    def tera_operations(self) -> dict[str, float]:
        """10^12 operations per second by precision, on the fastest unit."""
        return {name: self.peak(self.rates.computed_in(name), tensor=True) / 1e12 for name in ("fp32", "fp16", "int8")}


def _jetson(sms: str, clock: str, memory: str) -> dict[str, str]:
    return {"sms": sms, "clock": clock, "memory": memory}


_SAME = _jetson(_JETSONS, _JETSONS, _JETSONS)

DEVICES = (
    Device("nano", "Jetson Nano", "MAXN (10 W)", "maxwell", 1, 921.6e6, 25.6e9, _SAME),
    Device("tx2", "Jetson TX2", "Max-N (15 W)", "pascal", 2, 1300e6, 59.7e9, _jetson(_TX2, _NVIDIA, _TX2)),
    Device("xavier-nx", "Jetson Xavier NX", "15 W", "volta", 6, 1100e6, 59.7e9, _SAME),
    Device("agx-xavier", "Jetson AGX Xavier", "MAXN", "volta", 8, 1377e6, 136.5e9, _SAME),
    Device(
        *("orin-nano", "Jetson Orin Nano 8 GB", "15 W", "ampere", 8, 625e6, 68e9),
        sources=_jetson(_ORIN_NANO, _ORIN_NANO, _ORIN_NANO),
    ),
    Device("orin-nano-super", "Jetson Orin Nano 8 GB", "MAXN SUPER (25 W)", "ampere", 8, 1020e6, 102e9, _SAME),
    Device("orin-nx", "Jetson Orin NX 16 GB", "25 W", "ampere", 8, 918e6, 102.4e9, _SAME),
    Device(
        *("agx-orin", "Jetson AGX Orin 64 GB", "MAXN", "ampere", 16, 1300e6, 204.8e9),
        sources=_jetson(_ORIN_BRIEF, _JETSONS, _JETSONS),
    ),
    Device("thor", "Jetson AGX Thor", "MAXN", "blackwell", 20, 1570e6, 273e9, _jetson(_THOR_SM, _THOR, _NVIDIA)),
    # The clock is the one at which 132 SM give the 989 dense FP16 TFLOPS of the data sheet.
    Device(
        *("h200", "H200 SXM", "700 W", "hopper", 132, 1830e6, 4.8e12),
        sources={**_jetson(_H200, _H200, _H200), "link": _PCIE},
        link=64e9,
    ),
)


def find_device(name: str) -> Device:
    """The device of that name. Raises UserError that names the nearest ones."""
    wanted = name.strip().lower().replace("_", "-").removeprefix("jetson-")
    for device in DEVICES:
        if device.name == wanted:
            return device
    names = [device.name for device in DEVICES]
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "choose one of these."
    raise UserError(f"--device is {name!r}; the devices are {', '.join(names)}: {hint}")
