"""Write the tables of docs/predict.md: what was checked and fitted, and what is expected of the default model.

`python benchmarks/predict_page.py` writes them between the page's markers; `--check` exits 3 when they would change.
The model's kernels are those of benchmarks/results/predict-fcn8s-lite0-voc.json (FP16) and …-int8.json, which
`fcn-bench predict BUNDLE --device orin-nano [--precision int8] --json` wrote.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fcnedge.benchmarks.devices.device import DEVICES
from fcnedge.benchmarks.devices.forecast import forecast
from fcnedge.benchmarks.devices.graph import Network
from fcnedge.benchmarks.devices.kernel_time import KERNEL_MS
from fcnedge.benchmarks.devices.layer import Layer
from fcnedge.benchmarks.devices.prediction import size_words
from fcnedge.benchmarks.devices.published import published
from fcnedge.benchmarks.devices.validation import CHECK_HEADER, FITTED_HEADER, Validation, validate
from fcnedge.benchmarks.report.page import markdown_table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "predict.md"
RESULTS = {
    "fp16": ROOT / "benchmarks" / "results" / "predict-fcn8s-lite0-voc.json",
    "int8": ROOT / "benchmarks" / "results" / "predict-fcn8s-lite0-voc-int8.json",
}
BEGIN, END = "<!-- tables:", "<!-- end of tables -->"


def main() -> int:
    """Rewrite the tables in place; exit 3 with --check when they would change."""
    old = PAGE.read_text(encoding="utf-8")
    begin = old.index("\n", old.index(BEGIN)) + 1
    new = old[:begin] + tables(validate()) + old[old.index(END) :]
    if "--check" in sys.argv[1:]:
        return 3 if new != old else 0
    PAGE.write_text(new, encoding="utf-8")
    return 0


def tables(found: Validation) -> str:
    """All of them, as Markdown."""
    reasons = dict.fromkeys(row.reason for row in found.rows if row.reason)
    return "\n".join(
        (
            "",
            "### Checked, not fitted to",
            "",
            markdown_table(found.cells("check"), CHECK_HEADER),
            "",
            f"The largest error is {100 * found.worst:.0f}%; {found.tendency()}.",
            "",
            "### The fitted numbers",
            "",
            f"Every kernel: {1e3 * KERNEL_MS:.0f} µs beside its work.",
            "",
            markdown_table(found.fitted_cells(), FITTED_HEADER),
            "",
            "### Fitted to",
            "",
            markdown_table(found.cells("fit"), CHECK_HEADER),
            "",
            "### Left out",
            "",
            markdown_table(found.cells("left out"), CHECK_HEADER),
            "",
            *(f"- {reason[0].upper()}{reason[1:]}." for reason in reasons if reason),
            "",
            "### The default model",
            "",
            _model_words(),
            "",
            markdown_table(model_rows(), ("device", "mode", "in", "ms", "range", "frames/s", "memory", "launch")),
            "",
            "### Devices",
            "",
            markdown_table(
                device_rows(), ("name", "device, mode", "SM", "MHz", "GB/s", "FP32", "FP16", "INT8", "from")
            ),
            "",
            "FP32, FP16 and INT8: 10^12 operations per second, dense, on the fastest unit that has them; a precision "
            "that the hardware has not is the next one up.",
            "",
            "### Sources",
            "",
            *(f"- [{label}]: {address}" for address, label in sources().items()),
            "",
            "",
        )
    )


def model_rows() -> list[tuple[str, ...]]:
    """What is expected of the default model on every device, in FP16 and INT8."""
    rows = []
    for device in DEVICES:
        for precision in RESULTS:
            if device.rates.computed_in(precision) != precision:
                continue
            network, frame = read_result(precision)
            found = forecast(network, device, frame)
            shares = found.shares()
            rows.append(
                (
                    *(device.name, device.mode, precision, f"{found.whole.expected:.1f}"),
                    f"{found.whole.low:.1f} to {found.whole.high:.1f}",
                    *(f"{found.fps.expected:.0f}", f"{shares['memory']:.0%}", f"{shares['launch']:.0%}"),
                )
            )
    return rows


def read_result(precision: str) -> tuple[Network, tuple[int, int]]:
    """(kernels, frame size) of the committed prediction."""
    data = json.loads(RESULTS[precision].read_text(encoding="utf-8"))
    found = data["forecast"]
    layers = tuple(Layer(**each["layer"]) for each in found["layers"])
    height, width = found["frame"]
    return Network(layers, tuple(found["size"]), data["score_bytes"], ()), (height, width)


def device_rows() -> list[tuple[str, ...]]:
    """Every device with its figures, and where each is from."""
    labels = sources()
    return [
        (
            *(device.name, f"{device.title}, {device.mode}", str(device.sms), f"{device.clock / 1e6:g}"),
            f"{device.memory / 1e9:g}",
            *(f"{rate:,.3g}" if rate < 1000 else f"{rate:,.0f}" for rate in device.tera_operations.values()),
            ", ".join(f"{name} [{labels[address]}]" for name, address in device.sources.items())
            + ", rates "
            + " ".join(f"[{labels[address]}]" for address in device.rates.sources),
        )
        for device in DEVICES
    ]


def sources() -> dict[str, int]:
    """Every address that a figure is from, numbered in the order of first mention."""
    found = [address for device in DEVICES for address in (*device.sources.values(), *device.rates.sources)]
    found += [row.url for row in published()]
    return {address: number for number, address in enumerate(dict.fromkeys(found), 1)}


def _model_words() -> str:
    network, frame = read_result("fp16")
    return (
        f"fcn8s-lite0-voc at {size_words(network.size)}, frames of {size_words(frame)}, from frame to mask: expected, "
        "with the range; which share of the network's time is work of kernels bound by memory, and which is starting "
        "kernels (the rest is computing)."
    )


if __name__ == "__main__":
    sys.exit(main())
