"""Keras FCN → verified bundle: export, fuse, compare with Keras on real pictures, add other precisions, write."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from fcnedge.runtime import Bundle, Manifest, open_backend, voc_palette
from fcnedge.runtime.command import Progress, write_json
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import PRECISIONS, HeadSpec, InputSpec
from fcnedge.runtime.preprocessing import Preprocessing, fit_frame
from fcnedge.runtime.process_memory import peak_rss_bytes

from .agreement import MAX_SCORE_DIFFERENCE, Agreement, compare
from .bundle_writer import check_output, file_specs, graph_words, publish, staging_folder, write_manifest
from .fusion import FusionReport
from .keras_stage import EXPORTED_FILE, KerasResult, run_keras_stage
from .labelled_accuracy import Accuracy
from .model_source import ModelSource
from .precision.variant import VariantReport
from .typed_plan import PrecisionPlan
from .typed_stage import RangesUsed, head_of, run_typed_stage
from .verify_pictures import read_verify_pictures

MODEL_FILE = "model.fp32.onnx"
REPORT_FILE = "report.json"
_WORK = ".work"
_MODULES = ("tensorflow", "keras", "tf2onnx", "onnx", "onnx_ir", "onnxruntime", "numpy")


@dataclass(frozen=True)
class NodeCounts:
    """Nodes of the graph as exported and as fused."""

    before: int
    after: int


@dataclass(frozen=True)
class BuildReport:
    """Everything `fcn-build model` measured; report.json and --json. Seconds per step in the order they ran.

    peak_rss_bytes: largest resident memory of any process of the build; weights_bytes: of the Keras weights in float32;
    fp32_bytes: of the FP32 graph with its weights. ranges, precisions: of the typed graphs, None and empty when only
    fp32 was asked for; accuracy: None without labelled pictures. notes: how a foreign model was read, in sentences;
    compared_with: what the graph had to agree with.
    """

    name: str
    arch: str
    size: str
    output: str
    weights_bytes: int
    nodes: NodeCounts
    fusion: FusionReport
    agreement: Agreement
    fp32_bytes: int
    peak_rss_bytes: int
    ranges: RangesUsed | None = None
    precisions: dict[str, VariantReport] = field(default_factory=dict)
    accuracy: Accuracy | None = None
    notes: tuple[str, ...] = ()
    compared_with: str = "Keras"
    seconds: dict[str, float] = field(default_factory=dict)


class _Steps:
    """Names the step that runs, and keeps how long each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = Progress()
        self._name, self._started = "", perf_counter()

    def start(self, name: str) -> None:
        self.end()
        self._progress(f"{name} …")
        self._name, self._started = name, perf_counter()

    def end(self) -> None:
        if self._name:
            self.seconds[self._name] = round(perf_counter() - self._started, 3)
        self._name = ""
        self._progress.close()


def build_bundle(
    source: ModelSource,
    output: Path,
    *,
    verify: Path | None = None,
    fc_channels: int = 4096,
    head: str = "bilinear",
    force: bool = False,
    plan: PrecisionPlan | None = None,
) -> BuildReport:
    """Build `source` into the bundle folder `output`, and return what was measured.

    verify: folder of pictures (or one picture) on which graph and Keras must agree; None takes the demo pictures.
    head: "bilinear", or "labels" to keep all of the head in the graph, as a learned last deconvolution is in any case.
    plan: which precisions to build, from `plan_precisions`; None: fp32 alone.
    The bundle appears by one rename, whole or not at all. Raises UserError when the graph disagrees with Keras, a
    precision disagrees with FP32 or loses more than the plan allows, ranges are of another model, the output is taken
    (without force), the disk is full, or a package is missing.
    """
    check_output(output, force=force)
    steps = _Steps()
    pictures = [(name, fit_frame(image, source.size, source.fit)[0]) for name, image in read_verify_pictures(verify)]
    with staging_folder(output) as staging:
        work = staging / _WORK
        work.mkdir()
        keras = _original_half(source, fc_channels, pictures, work, steps)
        report = _graph_half(source, keras, staging, output, steps, labels=head == "labels")
        if not report.agreement.holds:
            raise UserError(_disagreement(report.agreement, _original(source)))
        bundle = _staged_bundle(source, keras, report, staging)
        report = _typed_half(plan or PrecisionPlan(), bundle, [image for _, image in pictures], report, steps)
        _finish(staging, source, keras.preprocessing, report)
        check_output(output, force=force)  # another build may have taken it meanwhile
        publish(staging, output)
    return report


def _original_half(
    source: ModelSource, fc_channels: int, pictures: list[tuple[str, np.ndarray]], work: Path, steps: _Steps
) -> KerasResult:
    """Run the model as it is on the pictures and leave its graph in `work`: Keras, or another framework's ONNX file."""
    if source.origin is not None and source.origin.kind == "onnx":
        from .importers.onnx_stage import run_onnx_stage

        steps.start("run and read the ONNX file")
        return run_onnx_stage(source, pictures, work)
    steps.start("run and export Keras")
    return run_keras_stage(source, fc_channels, pictures, work)


def _original(source: ModelSource) -> str:
    """What the graph is compared with."""
    return source.origin.path.name if source.origin is not None and source.origin.kind == "onnx" else "Keras"


def _graph_half(
    source: ModelSource, keras: KerasResult, staging: Path, output: Path, steps: _Steps, *, labels: bool
) -> BuildReport:
    """Fuse the exported graph, save it and compare it with Keras's answers."""
    import onnx_ir as ir

    from .export import save_onnx
    from .fusion import fuse
    from .fusion.layer_names import name_layers

    steps.start("fuse")
    graph = ir.load(staging / _WORK / EXPORTED_FILE)
    fusion = fuse(graph, source.size, labels=labels)
    name_layers(graph.graph, keras.layers)
    written = save_onnx(graph, staging / MODEL_FILE)
    del graph
    steps.start(f"compare with {_original(source)}")
    specs = file_specs(staging, [path.name for path in written])
    manifest = _manifest(source, keras.preprocessing, fusion, specs)
    head = head_of(manifest)
    backend = open_backend(Bundle(staging, manifest), "onnxruntime")
    try:
        agreement = compare(backend, head, keras.references)
    finally:
        backend.close()
    steps.end()
    return BuildReport(
        name=source.name,
        arch=source.arch,
        size=f"{source.size[1]}x{source.size[0]}",
        output=str(output),
        weights_bytes=keras.weights_bytes,
        nodes=NodeCounts(fusion.before.nodes, fusion.after.nodes),
        fusion=fusion,
        agreement=agreement,
        fp32_bytes=sum(path.stat().st_size for path in written),
        peak_rss_bytes=peak_rss_bytes(children=True),
        notes=keras.notes,
        compared_with=_original(source),
        seconds=steps.seconds,
    )


def _typed_half(
    plan: PrecisionPlan, bundle: Bundle, images: list[np.ndarray], report: BuildReport, steps: _Steps
) -> BuildReport:
    """Add the plan's other precisions to the staged bundle, and what was measured to the report."""
    if plan == PrecisionPlan():
        return report
    typed = run_typed_stage(plan, bundle, images, bundle.path / _WORK, steps.start)
    steps.end()
    return replace(
        report,
        ranges=typed.ranges,
        precisions=typed.precisions,
        accuracy=typed.accuracy,
        peak_rss_bytes=peak_rss_bytes(children=True),
        seconds=steps.seconds,
    )


def _staged_bundle(source: ModelSource, keras: KerasResult, report: BuildReport, staging: Path) -> Bundle:
    """The FP32 bundle as it stands before it is written."""
    specs = file_specs(staging, [path.name for path in sorted(staging.glob(f"{MODEL_FILE}*"))])
    return Bundle(staging, _manifest(source, keras.preprocessing, report.fusion, specs))


def _finish(staging: Path, source: ModelSource, preprocessing: Preprocessing, report: BuildReport) -> None:
    """Leave only the bundle's own files in `staging` and describe them in model.json."""
    shutil.rmtree(staging / _WORK)
    write_json(report, staging / REPORT_FILE)
    names = sorted((path.name for path in staging.iterdir()), key=_place_in_manifest)
    specs = file_specs(staging, names)
    write_manifest(staging, _manifest(source, preprocessing, report.fusion, specs))


def _place_in_manifest(name: str) -> tuple[int, str]:
    """Graphs first, most exact first."""
    precision, _ = graph_words(name)
    return (len(PRECISIONS) if precision is None else PRECISIONS.index(precision), name)


def _manifest(source: ModelSource, preprocessing: Preprocessing, fusion: FusionReport, specs: dict) -> Manifest:
    tail = fusion.tail
    head = (
        HeadSpec("labels") if tail is None else HeadSpec("bilinear", tail.stride, tail.kernel, tail.offset, tail.points)
    )
    palette = voc_palette(len(source.classes)).tolist()
    return Manifest(
        name=source.name,
        arch=source.arch,
        classes=source.classes,
        palette=tuple((red, green, blue) for red, green, blue in palette),
        input=InputSpec(source.size[0], source.size[1], source.fit),
        preprocessing=preprocessing,
        head=head,
        files=specs,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    """Versions of fcnedge, Python and every package that had a hand in the graph."""
    owners = importlib.metadata.packages_distributions()
    versions = {"fcnedge": importlib.metadata.version("fcnedge"), "python": platform.python_version()}
    for module in _MODULES:
        for distribution in owners.get(module, [])[:1]:  # tensorflow may come from tensorflow-cpu, tensorflow-macos …
            versions[distribution] = importlib.metadata.version(distribution)
    return versions


def _disagreement(agreement: Agreement, original: str) -> str:
    return (
        f"the fused graph disagrees with {original}, so no bundle was written: scores differ by "
        f"{agreement.relative_score_diff:.2g} of their range (limit {MAX_SCORE_DIFFERENCE:g}) and "
        f"{agreement.pixels_unequal} of {agreement.pixels_compared} labels are unequal; please report it."
    )
