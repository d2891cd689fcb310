"""Write the numbers of README and model card from the committed result files, so that none is typed by hand.

In benchmarks/results, sizes.json comes from `benchmarks/sizes.py --json`, accuracy.json from
`fcn-bench accuracy --backend onnxruntime,openvino --json`, compare.json from `fcn-bench compare --json`,
latency.json from `python benchmarks/latency.py --json`, head.json from `benchmarks/head.py --json` and
build-fcn8s-vgg16.json from `fcn-build model fcn8s-vgg16 --size 512x512 --json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fcnedge.build_engine.model_source import WEIGHTS_FOLDER
from fcnedge.build_engine.models.weights_file import read_info

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CARD = WEIGHTS_FOLDER / "fcn8s-lite0-voc.md"
WEAK_IOU = 0.3
"""Under this IoU a class is named as weak."""
BEGIN, END = "<!-- numbers:", "<!-- end of numbers -->"


def main() -> int:
    """Rewrite README.md and the model card in place; exit 3 with --check when one would change."""
    changed = False
    for path, block in ((ROOT / "README.md", numbers()), (CARD, card_numbers())):
        old = path.read_text(encoding="utf-8")
        new = with_numbers(old, block)
        changed |= new != old
        if "--check" not in sys.argv[1:]:
            path.write_text(new, encoding="utf-8")
    return 3 if changed and "--check" in sys.argv[1:] else 0


def with_numbers(text: str, block: str) -> str:
    """`text` with what stands between the two markers replaced by `block`."""
    begin = text.index("\n", text.index(BEGIN)) + 1
    return text[:begin] + block + text[text.index(END) :]


def numbers() -> str:
    """The README's table and sentences, as Markdown."""
    sizes, head, build = (_read(name) for name in ("sizes.json", "head.json", "build-fcn8s-vgg16.json"))
    subset = ", ".join(sizes["rows"][0]["subset"])
    rows = [
        f"| {row['size']} | {100 * row['miou_subset']:.1f} | {100 * row['miou']:.1f} ({len(row['iou'])} classes) "
        f"| {100 * row['pixel_accuracy']:.1f} | {row['p50_ms']:.0f} |"
        for row in sizes["rows"]
    ]
    return "\n".join(
        [
            "",
            f"**{sizes['rows'][0]['model']}** in FP32, ONNX Runtime, {sizes['threads']} threads of {sizes['machine']}, "
            "camera frame to mask of the frame's own size:",
            "",
            "| network input | mIoU-7 % | mIoU % | pixel accuracy % | ms per frame |",
            "|---|---|---|---|---|",
            *rows,
            "",
            *_precisions(),
            *_compared(),
            f"mIoU-7 is the mean over {subset}: the classes with enough pixels in the {sizes['rows'][0]['pictures']} "
            "pictures used, a subset of VOC2012 val with SBD masks.",
            "",
            *_weak_classes(),
            *_latency(),
            f"The head, class scores to a mask of class ids on {head['pictures']} of these pictures: "
            f"**{head['ratio']:.0f}x faster** than dense deconvolution in ONNX Runtime and NumPy argmax "
            f"({head['sparse_ms']:.1f} against {head['dense_ms']:.0f} ms, one thread), pixels that "
            f"differ: {head['unequal_pixels']}.",
            f"Building the full FCN-8s on VGG16 ({build['weights_bytes'] / 1e6:.0f} MB of weights) at {build['size']} "
            f"took {sum(build['seconds'].values()):.0f} s and {build['peak_rss_bytes'] / 1e9:.2f} GB of memory, and "
            f"{build['agreement']['pixels_unequal']} of {build['agreement']['pixels_compared']:,} compared labels "
            "differ from Keras.",
            "",
            "",
        ]
    )


def _precisions() -> list[str]:
    """The table of precisions and backends, as Markdown lines."""
    accuracy = _read("accuracy.json")
    rows = [
        f"| {row['precision']} | {row['backend']} | {row['graph_bytes'] / 1e6:.1f} | {100 * row['miou_subset']:.2f} "
        f"| {round(row['drop_points'], 2) + 0.0:.2f} | {100 * row['labels_equal']:.2f} | {row['p50_ms']:.0f} |"
        for row in accuracy["rows"]
    ]
    return [
        f"Every precision at {accuracy['rows'][0]['size']}. A CPU computes FP16 graphs in float32: they are for GPUs. "
        "Rows take turns picture by picture, which costs each of them the caches: compare them with each other, not "
        "with the table above.",
        "",
        "| precision | backend | graph MB | mIoU-7 % | drop, points | labels as in the first row % | ms per frame |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _compared() -> list[str]:
    """The table of other ways to the same mask, as Markdown lines."""
    report = _read("compare.json")
    rows = [row for row in report["rows"] if row["p50_ms"] is not None]
    lines = [
        f"| {row['name']} | {row['p50_ms']:.1f} | {_ratio(row)} | {_percent(row['miou7'])} |"
        for row in sorted(rows, key=lambda row: row["p50_ms"])
    ]
    return [
        f"Beside other ways to the same mask, {report['threads']} threads, a frame of {report['frame_size']} in, a "
        f"mask of its size out, in turns, ratios to {report['reference']} with 95% intervals ([how](docs/compare.md)):",
        "",
        "| | ms per frame | times as long | mIoU-7 % |",
        "|---|---|---|---|",
        *lines,
        "",
    ]


def _ratio(row: dict[str, Any]) -> str:
    if row["ratio_low"] == row["ratio_high"]:
        return f"{row['ratio']:.0f}"
    digits = 0 if row["ratio"] >= 100 else 1
    return f"{row['ratio']:.{digits}f} ({row['ratio_low']:.{digits}f} to {row['ratio_high']:.{digits}f})"


def _percent(share: float | None) -> str:
    return "not scored" if share is None else f"{100 * share:.1f}"


def _latency() -> list[str]:
    """What `latency.py` measured, as Markdown lines."""
    report = _read("latency.json")
    model, whole = report["model"], report["stages"]["end_to_end"]
    return [
        f"`python benchmarks/latency.py` on that machine, {model['backend']} {model['precision'].upper()}, "
        f"{report['source']['frame_sizes'][0]} frames: decoded, segmented and painted in {whole['p50_ms']:.1f} ms (p99 "
        f"{whole['p99_ms']:.1f}), {report['throughput_fps']:.0f} frames per second one after another.",
        "",
    ]


def _weak_classes() -> list[str]:
    """The sentence that names the classes not to rely on, worst first, as Markdown lines; none where all do well."""
    accuracy = _read("accuracy.json")
    row = accuracy["rows"][0]
    weak = sorted((iou, name) for name, iou in row["iou"].items() if iou < WEAK_IOU)
    if not weak:
        return []
    named = ", ".join(f"{name} {100 * iou:.1f}%" for iou, name in weak)
    where = f"at {row['size']} in {row['precision'].upper()}"
    return [f"**Weak classes**, with an IoU under {100 * WEAK_IOU:.0f}% {where}: {named}.", ""]


def card_numbers() -> str:
    """The model card's table: IoU per class at the size that the weights name."""
    info = read_info(WEIGHTS_FOLDER / "fcn8s-lite0-voc.safetensors")
    assert info is not None, "the shipped weights describe themselves"
    size = f"{info.size[1]}x{info.size[0]} {info.fit}"
    row = next(row for row in _read("sizes.json")["rows"] if row["size"] == size)
    iou = [f"| {name} | {100 * value:.1f} |" for name, value in row["iou"].items()]
    return "\n".join(
        [
            "",
            f"## Accuracy at {size}, FP32",
            "",
            f"VOC2012 val subset, {row['pictures']} pictures at their own size: mIoU-7 {100 * row['miou_subset']:.1f}% "
            f"over {', '.join(row['subset'])}; {100 * row['miou']:.1f}% over all {len(row['iou'])} classes that occur; "
            f"pixel accuracy {100 * row['pixel_accuracy']:.1f}%.",
            "",
            "| class | IoU % |",
            "|---|---|",
            *iou,
            "",
            "",
        ]
    )


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
