"""What a bundle should take on a board that is not here: a roofline from its graph and the board's data sheet.

Predicted, not measured. docs/predict.md says how, how far off it is, and lists the keys of its JSON.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

from fcnedge.benchmarks.devices.device import DEVICES, Device, find_device
from fcnedge.benchmarks.devices.forecast import forecast, largest_size
from fcnedge.benchmarks.devices.graph import Network, read_network
from fcnedge.benchmarks.devices.onnx_shapes import is_typed, load_model
from fcnedge.benchmarks.devices.prediction import FORMAT, TOOL, PredictReport
from fcnedge.benchmarks.devices.prediction_page import prediction_html, prediction_markdown
from fcnedge.benchmarks.devices.validation import Validation, validate
from fcnedge.benchmarks.measured_bundle import measured_bundle
from fcnedge.benchmarks.report.page import write_page
from fcnedge.runtime.command import write_json
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import PRECISIONS
from fcnedge.runtime.options import option


@dataclass(frozen=True)
class PredictOptions:
    """Command line of fcn-bench predict."""

    model: str | None = option(
        "bundle folder, shipped model or .onnx file; default: the shipped model, built if need be",
        None,
        positional=True,
    )
    device: str | None = option(f"the board: {', '.join(device.name for device in DEVICES)}", None)
    precision: str = option("which of its graphs, or what an untyped graph is compiled in", "fp16", choices=PRECISIONS)
    size: tuple[int, int] | None = option("WIDTHxHEIGHT of the network; default: the graph's own", None)
    frame_size: tuple[int, int] = option("WIDTHxHEIGHT of the camera's frames", (720, 1280))
    fps: float = option("frame rate to find the largest network size for", 30.0)
    check: bool = option("predict what others published, and say how far off it is; needs no model", False)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")
    html: Path | None = option("write the report as one HTML file", None, metavar="FILE")
    markdown: Path | None = option("write the tables as Markdown", None, metavar="FILE")


def predict(options: PredictOptions) -> PredictReport:
    """The forecast for the model and device that `options` name. Raises UserError, or BundleError as `Bundle.load`."""
    device = _device(options)
    if not 0 < options.fps < math.inf:
        raise UserError(f"--fps is {options.fps:g}; it must be more than 0.")
    name, path, notes = _graph(options, device)
    model = load_model(path)
    precision = device.rates.computed_in(options.precision)
    assumed = None if precision == "fp32" or is_typed(model) else precision
    if assumed is not None:
        notes.append(f"the graph has no types: as if all of it were compiled in {assumed.upper()}")

    def read(size: tuple[int, int] | None) -> Network:
        return read_network(model, size, assumed)

    network = read(options.size)
    found = forecast(network, device, options.frame_size)
    reaches, surely = largest_size(read, device, options.frame_size, network.size, options.fps)
    if network.unknown:
        notes.append(
            f"counted by their bytes alone, because what they compute is not known: {', '.join(network.unknown)}"
        )
    return PredictReport(
        tool=TOOL,
        format=FORMAT,
        model=name,
        graph=path.name,
        precision=options.precision,
        multiply_adds=network.multiply_adds,
        weight_bytes=network.weight_bytes,
        score_bytes=network.score_bytes,
        forecast=found,
        shares=found.shares(),
        fps=options.fps,
        reaches=reaches,
        surely_reaches=surely,
        unknown=network.unknown,
        notes=tuple(notes),
    )


def run(options: PredictOptions) -> PredictReport | Validation:
    """What `options` ask for: a prediction, or how far off predictions are. Raises UserError."""
    if options.check and (options.html is not None or options.markdown is not None):
        raise UserError("--check has no page; leave out --html and --markdown, or take --json.")
    return validate() if options.check else predict(options)


def write_report(report: PredictReport | Validation, options: PredictOptions) -> None:
    """Write the files that `options` name. Raises UserError when one cannot be written."""
    if options.json is not None:
        write_json(report, options.json)
    if options.html is not None and isinstance(report, PredictReport):
        write_page(prediction_html(report), options.html)
    if options.markdown is not None and isinstance(report, PredictReport):
        write_page(prediction_markdown(report), options.markdown)


def _device(options: PredictOptions) -> Device:
    if options.device is None:
        raise UserError(f"--device is missing; name one of {', '.join(device.name for device in DEVICES)}.")
    return find_device(options.device)


def _graph(options: PredictOptions, device: Device) -> tuple[str, Path, list[str]]:
    """(model's name, graph file, notes)."""
    notes: list[str] = []
    if options.model is not None and options.model.endswith(".onnx"):
        return Path(options.model).stem, Path(options.model), notes
    bundle = measured_bundle(options.model)
    precision = device.rates.computed_in(options.precision)
    if precision != options.precision:
        notes.append(
            f"{device.title} computes {options.precision.upper()} no faster than {precision.upper()}: predicted so"
        )
    if precision not in bundle.manifest.precisions:
        notes.append(f"the bundle holds no {precision} graph: its fp32 graph was read")
        precision = "fp32"
    return bundle.manifest.name, bundle.model(precision, "tensorrt"), notes


if __name__ == "__main__":
    from fcnedge.benchmarks.cli import main

    sys.exit(main(["predict", *sys.argv[1:]]))
