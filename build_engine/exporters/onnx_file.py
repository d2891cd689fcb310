"""`fcn-build export onnx`: one self-contained ONNX file that ends in labels, for anyone else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fcnedge.runtime import Bundle
from fcnedge.runtime.errors import UserError

from ..bundle_writer import check_takes_folders, disk_errors, existing_folder, staging_folder
from .input_form import take
from .labels_graph import describe, end_in_labels, open_graph, save_whole
from .result import ExportResult

MASK_SIZE = (
    "The frame's own size: labels come at the network's size, {width}x{height}. Enlarge them by the nearest label; the "
    "runtime interpolates scores to the frame instead, which draws finer edges."
)
FITTING = {
    "stretch": "Fitting: bring each frame to {width}x{height} yourself, stretched (bilinear).",
    "letterbox": (
        "Fitting: bring each frame to {width}x{height} yourself: aspect kept, at the top left, the rest grey 127; and "
        "cut the mask to the part that the frame takes."
    ),
}


@dataclass(frozen=True)
class OnnxPlan:
    """Checked options. layout: "nhwc" or "nchw"; floats: whether the pixels come as float32."""

    bundle: Bundle
    output: Path
    precision: str
    target: str | None
    layout: str
    floats: bool

    @property
    def result(self) -> ExportResult:
        """What will have been written; the second file, if there is one, is known only then."""
        return ExportResult(
            kind="onnx",
            bundle=str(self.bundle.path),
            precision=self.precision,
            graph=self.bundle.model(self.precision, self.target).name,
            output=str(self.output),
            not_carried=left_to_the_caller(self.bundle),
        )


def left_to_the_caller(bundle: Bundle) -> tuple[str, ...]:
    """What every server leaves to whoever calls it: fitting the frame, and enlarging the mask."""
    sides = {"width": bundle.manifest.input.width, "height": bundle.manifest.input.height}
    return FITTING[bundle.manifest.input.fit].format(**sides), MASK_SIZE.format(**sides)


def check_file(output: Path, *, force: bool) -> None:
    """Raise UserError unless an ONNX file can be written at `output`."""
    if output.suffix != ".onnx":
        raise UserError(f"-o is {output}; the name of an ONNX file ends in .onnx.")
    with disk_errors(output):
        if output.is_dir():
            raise UserError(f"{output} is a folder; choose another name for -o.")
        taken = [path for path in (output, output.with_name(f"{output.name}.data")) if path.exists()]
        if taken and not force:
            raise UserError(f"{taken[0]} exists already; add --force to replace it.")
        parent = existing_folder(output.resolve().parent)
    if not parent.is_dir():
        raise UserError(f"{parent} is a file, so nothing can lie in it; choose another place for -o.")
    check_takes_folders(parent, output)


def write_onnx(plan: OnnxPlan, start: Callable[[str], None]) -> ExportResult:
    """Write the file. Raises UserError; then nothing was written. start: called with the name of each step."""
    start("head")
    model = open_graph(plan.bundle, plan.precision, plan.target)
    end_in_labels(model, plan.bundle.manifest)
    take(model.graph, planes=plan.layout == "nchw", floats=plan.floats)
    describe(model, plan.bundle.manifest, plan.precision)
    start("write")
    with staging_folder(plan.output) as folder:
        written = save_whole(model, folder / plan.output.name)
        for path in reversed(written):  # the weights first: the graph is there only when they are
            path.replace(plan.output.parent / path.name)
    return plan.result
