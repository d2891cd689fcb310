"""What each stage of a frame must cost at least: bytes and operations, at the rates of the boards' datasheets.

`python benchmarks/roofline.py` writes the tables between the markers of docs/gpu.md; `--check` exits 3 when they would
change. The network's numbers are those of benchmarks/results/build-fcn8s-vgg16.json, the others follow from shapes.
The column "measured" is filled by hand with the device's result file beside it, and kept.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "gpu.md"
BUILD = ROOT / "benchmarks" / "results" / "build-fcn8s-vgg16.json"
BEGIN, END = "<!-- ideal:", "<!-- end of ideal -->"

FRAME = (720, 1280)
CLASSES = 21
BYTES_PER_NUMBER = {"fp16": 2, "int8": 1}
SCORE_BYTES = 2  # the score layers stay float16 in both


@dataclass(frozen=True)
class Board:
    """Peak rates of a datasheet, without structured sparsity and without the DLA.

    memory: bytes per second. tera_operations: 10**12 multiplications and additions per second on the tensor cores, by
    precision. link: bytes per second from the host in one direction, None where GPU and CPU share the memory.
    """

    name: str
    memory: float
    tera_operations: dict[str, float]
    link: float | None
    source: str


BOARDS = (
    # 40 TOPS with sparsity, all of the GPU; FP16 has half the rate of INT8 on Ampere's tensor cores.
    Board("Orin Nano 8 GB", 68e9, {"fp16": 10, "int8": 20}, None, "Jetson Orin Nano Series data sheet"),
    # 170 of the 275 TOPS are the GPU's, with sparsity.
    Board("AGX Orin 64 GB", 204.8e9, {"fp16": 42.5, "int8": 85}, None, "Jetson AGX Orin Series technical brief"),
    Board("AGX Xavier", 136.5e9, {"fp16": 11, "int8": 22}, None, "Jetson AGX Xavier Series data sheet"),
    # 1,979 and 3,958 with sparsity; PCIe 5.0 x16, 128 GB/s in both directions together.
    Board("H200 SXM", 4.8e12, {"fp16": 989.5, "int8": 1979}, 64e9, "NVIDIA H200 data sheet"),
)


@dataclass(frozen=True)
class Stage:
    """Least work of one stage. memory, link: bytes; multiply_adds: on the tensor cores, in `precision`."""

    name: str
    memory: int = 0
    link: int = 0
    multiply_adds: int = 0
    precision: str = "fp16"

    def ideal_ms(self, board: Board) -> float:
        """Milliseconds on `board` where what takes longest hides the rest."""
        link = self.link / board.link if board.link else 0.0
        operations = 2 * self.multiply_adds / (board.tera_operations[self.precision] * 1e12)
        return 1e3 * max(self.memory / board.memory, link, operations)


@dataclass(frozen=True)
class Network:
    """size: (height, width) of its input; stride: of its score grid; weights: how many numbers."""

    size: tuple[int, int]
    stride: int
    weights: int
    multiply_adds: int


def stages(network: Network) -> list[Stage]:
    """Every stage of one frame of `FRAME`, in order. A byte is counted once where it enters or leaves a stage."""
    frame, mask, image = 3 * _area(FRAME), _area(FRAME), 3 * _area(network.size)
    scores = SCORE_BYTES * CLASSES * _area(network.size) // network.stride**2
    touched = min(frame, 4 * image)  # bilinear: four frame pixels for each of the network's
    return [
        Stage("frame to GPU", link=frame),
        Stage("preprocess", memory=touched + image),
        *(
            Stage(
                f"network, {precision.upper()}",
                memory=network.weights * number_bytes + image + scores,
                multiply_adds=network.multiply_adds,
                precision=precision,
            )
            for precision, number_bytes in BYTES_PER_NUMBER.items()
        ),
        Stage("scores to labels", memory=scores + mask),
        Stage("overlay, every pixel painted", memory=2 * frame + mask),
        Stage("mask to CPU", link=mask),
    ]


def read_network(path: Path = BUILD) -> Network:
    """The network that a build's result file describes."""
    build = json.loads(path.read_text(encoding="utf-8"))
    width, height = map(int, build["size"].split("x"))
    fused = build["fusion"]
    return Network(
        (height, width), fused["tail"]["stride"], build["weights_bytes"] // 4, fused["after"]["multiply_adds"]
    )


def tables(network: Network, measured: dict[tuple[str, str], str] | None = None) -> str:
    """The tables as Markdown. measured: by board and stage, what stands in the last column; empty where nothing."""
    measured = measured or {}
    lines = [
        "",
        f"FCN-8s on VGG16 at {network.size[1]}x{network.size[0]}, {CLASSES} classes, frames of {FRAME[1]}x{FRAME[0]}:",
        "",
        "| stage | memory MB | link MB | multiply-adds G |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {stage.name} | {_number(stage.memory / 1e6)} | {_number(stage.link / 1e6)} "
        f"| {_number(stage.multiply_adds / 1e9)} |"
        for stage in stages(network)
    ]
    for board in BOARDS:
        link = f", link {board.link / 1e9:g} GB/s" if board.link else ", memory shared with the CPU: nothing to copy"
        lines += [
            "",
            f"**{board.name}**: memory {board.memory / 1e9:g} GB/s, FP16 {board.tera_operations['fp16']:g} and INT8 "
            f"{board.tera_operations['int8']:g} tera-operations/s{link} ({board.source}).",
            "",
            "| stage | ideal ms | measured ms |",
            "|---|---|---|",
        ]
        lines += [
            f"| {stage.name} | {_number(stage.ideal_ms(board))} | {measured.get((board.name, stage.name), '')} |"
            for stage in stages(network)
        ]
    return "\n".join([*lines, "", ""])


def main() -> int:
    """Rewrite the tables of docs/gpu.md in place; exit 3 with --check when they would change."""
    old = PAGE.read_text(encoding="utf-8")
    begin, end = old.index("\n", old.index(BEGIN)) + 1, old.index(END)
    new = old[:begin] + tables(read_network(), _measured(old[begin:end])) + old[end:]
    if "--check" in sys.argv[1:]:
        return 3 if new != old else 0
    PAGE.write_text(new, encoding="utf-8")
    return 0


def _measured(block: str) -> dict[tuple[str, str], str]:
    """The last column as it stands in the page: a measured number is not lost when the tables are written anew."""
    found, board = {}, ""
    for line in block.splitlines():
        if heading := re.match(r"\*\*(.+?)\*\*: memory", line):
            board = heading[1]
        elif board and (row := re.match(r"\| (.+?) \| [^|]* \| ([^|]*?) ?\|$", line)):
            found[board, row[1]] = row[2]
    return found


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _number(value: float) -> str:
    """Three digits; nothing for nothing."""
    return f"{value:#.3g}".rstrip(".") if value else ""


if __name__ == "__main__":
    sys.exit(main())
