"""`fcn-build sensitivity`: from the command line's words to a table, a picture and a result file."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path

from fcnedge.calibration.activations import load_graph
from fcnedge.calibration.collect import preprocessing_sha256
from fcnedge.calibration.fingerprint import graph_fingerprint
from fcnedge.calibration.ranges import Ranges, read_ranges, replace_file
from fcnedge.calibration.sensitivity_cli import SensitivityOptions
from fcnedge.runtime import BilinearHead, Bundle
from fcnedge.runtime.command import write_json
from fcnedge.runtime.errors import UserError, missing_package

from .evaluation import LabelledPictures, choose_samples
from .sensitivity import LayerSensitivity, Sensitivity, measure_sensitivity, quantisable

RANGES_NAME = "ranges.json"
_ROW_INCHES = 0.2


@dataclass(frozen=True)
class SensitivityReport:
    """What --json holds. ranges: file; split: in words; exclude: convolutions left in float throughout."""

    model: str
    size: str
    ranges: str
    split: str
    exclude: tuple[str, ...]
    sensitivity: Sensitivity


def run(options: SensitivityOptions) -> None:
    """Measure, draw, write and print. Raises UserError, for whatever can be known before it is measured."""
    _check(options)
    bundle = Bundle.load(options.bundle)
    graph, manifest = bundle.model("fp32"), bundle.manifest
    ranges_path = bundle.path / RANGES_NAME if options.ranges is None else options.ranges
    ranges = _matching_ranges(ranges_path, bundle)
    if manifest.head.kind != "bilinear":
        raise UserError(f"{bundle.path} gives labels and no class scores to compare; use a model with a bilinear head.")
    exclude = _listed(options.exclude)
    samples = choose_samples(options.data, options.split, options.images)
    layers = len(quantisable(graph, exclude))
    if options.dry_run:
        sys.stdout.write(f"would measure {layers} convolutions of {bundle.path} on {len(samples)} pictures\n")
        return
    size = (manifest.input.height, manifest.input.width)
    head = BilinearHead(manifest.head.geometry)
    pictures = LabelledPictures(graph, samples, size, manifest.input.fit, head, threads=options.threads)
    found = measure_sensitivity(graph, ranges, pictures, exclude=exclude, top=options.top)
    report = SensitivityReport(
        model=manifest.name,
        size=f"{size[1]}x{size[0]} {manifest.input.fit}",
        ranges=str(ranges_path),
        split=f"{options.split or 'train without calibration'}, {len(samples)} pictures",
        exclude=exclude,
        sensitivity=found,
    )
    if options.json is not None:
        write_json(report, options.json)
    if options.picture is not None:
        draw(report, options.picture)
    sys.stdout.write(f"{found.text(options.top)}\n")


def draw(report: SensitivityReport, path: Path) -> None:
    """Bars of every layer, worst on top, into a PNG: noise of its scores, and drop of mIoU with its standard error.

    Raises UserError without matplotlib, and when `path` cannot be written.
    """
    _check_matplotlib()
    from matplotlib.figure import Figure

    layers = report.sensitivity.layers
    places = range(len(layers))
    figure = Figure(figsize=(10, 1.4 + _ROW_INCHES * len(layers)), layout="constrained")
    noise, drop = figure.subplots(1, 2, sharey=True)
    for kind, colour in (("in INT8 by default", "tab:blue"), ("in float by default", "tab:grey")):
        chosen = [place for place in places if (layers[place].float_reason is None) == (colour == "tab:blue")]
        noise.barh(chosen, [_noise_percent(layers[place]) for place in chosen], color=colour, label=kind)
        for place in chosen:
            alone = layers[place].alone
            if alone is not None:
                drop.barh(place, alone.drop, color=colour)
                drop.errorbar(alone.drop, place, xerr=alone.drop_error, color="black", linewidth=0.8)
    noise.set_yticks(places, [layer.layer for layer in layers], fontsize=8)
    noise.set_ylim(len(layers) - 0.4, -0.6)  # the first on top
    noise.set_xlabel("noise of the scores, % of their size (root mean square)")
    drop.set_xlabel("drop of mIoU in points, ± standard error")
    noise.legend(loc="lower right", fontsize=8)
    for axes in (noise, drop):
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)  # bars above the grid
    figure.suptitle(f"{report.model} at {report.size}: each convolution alone in INT8, {report.split}", fontsize=10)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    replace_file(path, picture.getvalue())


def _noise_percent(layer: LayerSensitivity) -> float:
    return 100 * 10 ** (-layer.alone_sqnr_db / 20)


def _check(options: SensitivityOptions) -> None:
    for name, value in (("--images", options.images), ("--top", options.top), ("--threads", options.threads)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}; it must be 1 or more.")
    for name, path in (("--picture", options.picture), ("--json", options.json)):
        if path is not None and path.is_dir():
            raise UserError(f"{path} is a folder; choose the name of a file for {name}.")
    if options.picture is not None:
        _check_matplotlib()


def _check_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise missing_package("matplotlib", extra="train") from error


def _matching_ranges(path: Path, bundle: Bundle) -> Ranges:
    """Read ranges, and refuse those of another graph or of pictures that were prepared otherwise."""
    ranges = read_ranges(path)
    ranges.check(graph_fingerprint(load_graph(bundle.model("fp32"))))
    if ranges.preprocessing_sha256 != preprocessing_sha256(bundle.manifest):
        raise UserError(
            f"{path} was collected with another input size, fit, mean, scale or channel order than {bundle.path} has; "
            "collect the ranges again with fcn-calibrate ranges."
        )
    return ranges


def _listed(text: str | None) -> tuple[str, ...]:
    """The names between the commas of --exclude."""
    if text is None:
        return ()
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if "" in names:
        raise UserError(f"--exclude is {text!r}; it takes names of convolutions with commas between them.")
    return names
