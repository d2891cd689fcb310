"""What each stage of a frame must cost at least: bytes and operations, at the rates of the boards' datasheets.

`python benchmarks/roofline.py` writes the tables between the markers of docs/gpu.md; `--check` exits 3 when they would
change. VGG16's numbers are those of benchmarks/results/build-fcn8s-vgg16.json, lite0's those of
benchmarks/results/predict-fcn8s-lite0-voc.json; the others follow from shapes. What a network should take in practice
is another question: docs/predict.md. The column "measured" is filled by hand with the device's result file beside it,
and kept.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fcnedge.benchmarks.devices.device import Device, find_device
from fcnedge.benchmarks.devices.frame_stages import Stage, after_network, before_network

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "gpu.md"
BUILD = ROOT / "benchmarks" / "results" / "build-fcn8s-vgg16.json"
PREDICTION = ROOT / "benchmarks" / "results" / "predict-fcn8s-lite0-voc.json"
BEGIN, END = "<!-- ideal:", "<!-- end of ideal -->"

FRAME = (720, 1280)
CLASSES = 21
BYTES_PER_NUMBER = {"fp16": 2, "int8": 1}
SCORE_BYTES = 2  # the score layers stay float16 in both
BOARDS = tuple(find_device(name) for name in ("orin-nano", "agx-orin", "agx-xavier", "h200"))


@dataclass(frozen=True)
class Network:
    """size: (height, width) of its input; stride: of its score grid; weights: how many numbers.

    depthwise_multiply_adds: those of the multiply-adds that no Tensor Core does.
    """

    name: str
    size: tuple[int, int]
    stride: int
    weights: int
    multiply_adds: int
    depthwise_multiply_adds: int = 0


def stages(network: Network) -> list[Stage]:
    """Every stage of one frame of `FRAME`, in order. A byte is counted once where it enters or leaves a stage."""
    image = 3 * network.size[0] * network.size[1]
    scores = SCORE_BYTES * CLASSES * network.size[0] * network.size[1] // network.stride**2
    return [
        *before_network(FRAME, network.size),
        *(
            Stage(
                f"network, {precision.upper()}",
                memory=network.weights * number_bytes + image + scores,
                multiply_adds=network.multiply_adds - network.depthwise_multiply_adds,
                cuda_multiply_adds=network.depthwise_multiply_adds,
                precision=precision,
            )
            for precision, number_bytes in BYTES_PER_NUMBER.items()
        ),
        *after_network(FRAME, scores),
    ]


def read_networks() -> tuple[Network, ...]:
    """The networks of the committed result files: the default model, and FCN-8s on VGG16."""
    return read_lite0(), read_vgg16()


def read_vgg16(path: Path = BUILD) -> Network:
    """The network that a build's result file describes."""
    build = json.loads(path.read_text(encoding="utf-8"))
    width, height = map(int, build["size"].split("x"))
    fused = build["fusion"]
    return Network(
        "FCN-8s on VGG16",
        (height, width),
        fused["tail"]["stride"],
        build["weights_bytes"] // 4,
        fused["after"]["multiply_adds"],
    )


def read_lite0(path: Path = PREDICTION) -> Network:
    """The network whose kernels, in FP16, a prediction's result file lists."""
    data = json.loads(path.read_text(encoding="utf-8"))
    layers = [each["layer"] for each in data["forecast"]["layers"]]
    return Network(
        data["model"],
        tuple(data["forecast"]["size"]),
        8,
        data["weight_bytes"] // BYTES_PER_NUMBER["fp16"],
        data["multiply_adds"],
        sum(layer["multiply_adds"] for layer in layers if layer["inputs"] == 1),
    )


def tables(networks: Sequence[Network], measured: dict[tuple[str, ...], str] | None = None) -> str:
    """The tables as Markdown. measured: by network, board and stage, what stands in the last column."""
    return "\n".join(line for network in networks for line in _network_lines(network, measured or {})) + "\n\n"


def main() -> int:
    """Rewrite the tables of docs/gpu.md in place; exit 3 with --check when they would change."""
    old = PAGE.read_text(encoding="utf-8")
    begin, end = old.index("\n", old.index(BEGIN)) + 1, old.index(END)
    new = old[:begin] + tables(read_networks(), _measured(old[begin:end])) + old[end:]
    if "--check" in sys.argv[1:]:
        return 3 if new != old else 0
    PAGE.write_text(new, encoding="utf-8")
    return 0


def _network_lines(network: Network, measured: dict[tuple[str, ...], str]) -> list[str]:
    lines = [
        "",
        f"### {network.name}",
        "",
        f"At {network.size[1]}x{network.size[0]}, {CLASSES} classes, frames of {FRAME[1]}x{FRAME[0]}:",
        "",
        "| stage | memory MB | link MB | multiply-adds G |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {stage.name} | {_number(stage.memory / 1e6)} | {_number(stage.link / 1e6)} "
        f"| {_number((stage.multiply_adds + stage.cuda_multiply_adds) / 1e9)} |"
        for stage in stages(network)
    ]
    for board in BOARDS:
        lines += ["", _board_line(board), "", "| stage | ideal ms | measured ms |", "|---|---|---|"]
        lines += [
            f"| {stage.name} | {_number(stage.ideal_ms(board))} "
            f"| {measured.get((network.name, board.title, stage.name), '')} |"
            for stage in stages(network)
        ]
    return lines


def _board_line(board: Device) -> str:
    link = f", link {board.link / 1e9:g} GB/s" if board.link else ", memory shared with the CPU: nothing to copy"
    rates = board.tera_operations
    return (
        f"**{board.title}**: {board.mode}, memory {board.memory / 1e9:g} GB/s, FP16 {rates['fp16']:.4g} and INT8 "
        f"{rates['int8']:.4g} tera-operations/s{link}."
    )


def _measured(block: str) -> dict[tuple[str, ...], str]:
    """The last column as it stands in the page: a measured number is not lost when the tables are written anew."""
    found, network, board = {}, "", ""
    for line in block.splitlines():
        if heading := re.match(r"### (.+)", line):
            network, board = heading[1], ""
        elif heading := re.match(r"\*\*(.+?)\*\*: ", line):
            board = heading[1]
        elif board and (row := re.match(r"\| (.+?) \| [^|]* \| ([^|]*?) ?\|$", line)):
            found[network, board, row[1]] = row[2]
    return found


def _number(value: float) -> str:
    """Three digits; nothing for nothing."""
    return f"{value:#.3g}".rstrip(".") if value else ""


if __name__ == "__main__":
    sys.exit(main())
