"""`fcn-build export deepstream`: a gst-nvinfer configuration for segmentation, and the ONNX file that fits it.

What gst-nvinfer does, and what follows (DeepStream 6 to 9):
- it feeds float32 planes, y = net-scale-factor · (x - offsets), one factor for all channels. The graph's first
  convolution holds the factors per channel already, so net-scale-factor is 1 and offsets are the mean, in BGR;
- its own parser takes, for each pixel, the class with the highest value above segmentation-threshold, which may not be
  negative, and -1 where there is none. Scores may be negative, probabilities never are: so the graph ends in a
  softmax, and with a threshold of 0 each pixel has a class, the lowest id where two share the highest value;
- that parser reads float32 (C, H, W) only, so the labels head is of no use to it.
Keys: https://docs.nvidia.com/metropolis/deepstream/dev-guide/text/DS_plugin_gst-nvinfer.html
Parser: fillSegmentationOutput in sources/libs/nvdsinfer/nvdsinfer_context_impl_output_parsing.cpp of an installation.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fcnedge.runtime import Bundle
from fcnedge.runtime.errors import UserError

from .batch import batch_disagreement, free_batch
from .folder import README_NAME, export_folder, exported_files
from .input_form import take_centred
from .labels_graph import PROBABILITIES_NAME, describe, end_in_probabilities, open_graph, save_whole
from .onnx_file import MASK_SIZE
from .result import ExportResult, readme

CONFIG_NAME = "config_infer.txt"
_CACHE_NAME = "calibration.cache"
_NETWORK_MODES = {"fp32": 0, "int8": 1, "fp16": 2}
_HOW = """
Give {config} to nvinfer as config-file-path. The first start compiles an engine beside the ONNX file, later ones open
it. The mask is in NvDsInferSegmentationMeta.class_map, {width}x{height}; nvsegvisual colours it. With
output-tensor-meta=1 an application gets the probabilities themselves.
"""
_ENGINE = (
    "The engine: fcnedge's engines take uint8 pixels and give scores, so DeepStream compiles one of its own, and "
    "nobody checks what precision its layers got."
)
_COLOURS = "The palette: nvsegvisual has colours of its own; the bundle's are in the ONNX file's metadata."
_LETTERBOX = (
    "The letterbox's grey: gst-nvinfer fills with black, at the right and below as the bundle does; the mask covers "
    "the fill too, and is to be cut to the part that the frame takes."
)
_TYPES = (
    "Types per layer: up to TensorRT 10 gst-nvinfer allows FP16 by a builder flag, which may put into FP16 what the "
    "bundle's graph keeps in float32."
)
_RANGES = (
    "INT8 as measured: TensorRT places INT8 by the calibration cache's ranges as it likes; agreement and mIoU in "
    "report.json are of the bundle's own INT8 graphs. The cache is for the TensorRT release in its first line: write "
    "it for yours with fcn-calibrate ranges --cache. TensorRT 11 reads none."
)


@dataclass(frozen=True)
class DeepStreamPlan:
    """Checked options. batch: frames at a time; cache: calibration cache, for int8; workspace: MiB."""

    bundle: Bundle
    output: Path
    precision: str
    batch: int
    cache: Path | None
    workspace: int

    @property
    def graph_precision(self) -> str:
        """Of the graph that is taken: INT8 comes from the cache, around the fp32 graph."""
        return "fp32" if self.precision == "int8" else self.precision

    @property
    def result(self) -> ExportResult:
        """What will have been written."""
        sides = self.bundle.manifest.input
        left = [MASK_SIZE.format(width=sides.width, height=sides.height), _ENGINE, _COLOURS]
        left += [_LETTERBOX] if sides.fit == "letterbox" else []
        left += {"fp32": [], "fp16": [_TYPES], "int8": [_RANGES]}[self.precision]
        return ExportResult(
            kind="deepstream",
            bundle=str(self.bundle.path),
            precision=self.precision,
            graph=self.bundle.model(self.graph_precision).name,
            output=str(self.output),
            not_carried=tuple(left),
        )


def bundled_cache(bundle: Bundle) -> Path:
    """The bundle's calibration cache. Raises UserError when it has none."""
    if _CACHE_NAME not in bundle.manifest.files:
        raise UserError(
            f"{bundle.path} holds no {_CACHE_NAME}, which INT8 in DeepStream needs; write one with fcn-calibrate "
            "ranges and pass it as --calibration-cache."
        )
    return bundle.path / _CACHE_NAME


def check_scores(bundle: Bundle) -> None:
    """Raise UserError for a bundle whose graph ends in labels."""
    if bundle.manifest.head.kind == "labels":
        raise UserError(
            f"{bundle.path} ends in labels, and gst-nvinfer's parser reads float scores; build the bundle with --head "
            "bilinear."
        )


def write_deepstream(plan: DeepStreamPlan, start: Callable[[str], None]) -> ExportResult:
    """Write the folder. Raises UserError; then nothing was written. start: called with the name of each step."""
    manifest, result = plan.bundle.manifest, plan.result
    with export_folder(plan.output, "deepstream") as folder:
        start("head")
        mean, input_name = _write_graph(plan, folder, start)
        start("write")
        if plan.cache is not None:
            shutil.copyfile(plan.cache, folder / _CACHE_NAME)
        (folder / CONFIG_NAME).write_text(_config(plan, mean), encoding="utf-8")
        lines = "".join(f"{name}\n" for name in manifest.classes)
        (folder / "labels.txt").write_text(lines, encoding="utf-8")
        how = _HOW.format(config=CONFIG_NAME, width=manifest.input.width, height=manifest.input.height)
        how += f"Input tensor: {input_name}, float32 planes, BGR."
        (folder / README_NAME).write_text(readme(manifest.name, how, result.not_carried), encoding="utf-8")
    return replace(result, files=exported_files(plan.output))


def _write_graph(
    plan: DeepStreamPlan, folder: Path, start: Callable[[str], None]
) -> tuple[tuple[float, float, float], str | None]:
    """Write model.onnx; gives the mean that gst-nvinfer has to subtract, (B, G, R), and the input's name."""
    model = open_graph(plan.bundle, plan.graph_precision)
    end_in_probabilities(model, plan.bundle.manifest)
    mean = take_centred(model.graph)
    describe(model, plan.bundle.manifest, plan.precision)
    input_name = model.graph.inputs[0].name
    written = save_whole(model, folder / "model.onnx")
    if plan.batch > 1:
        start(f"batches of {plan.batch}")
        free_batch(model)
        (folder / "batched").mkdir()
        batched = save_whole(model, folder / "batched" / "model.onnx")
        reason = batch_disagreement(batched[0], written[0], plan.batch)
        if reason is not None:
            raise UserError(f"--batch is {plan.batch}, and the graph takes one picture at a time: {reason}")
        for path in batched:
            path.replace(folder / path.name)
        (folder / "batched").rmdir()
    return mean, input_name


def _config(plan: DeepStreamPlan, mean: tuple[float, float, float]) -> str:
    """The text of the configuration. Paths in it are relative to its own folder."""
    manifest = plan.bundle.manifest
    properties = {
        "gpu-id": 0,
        "gie-unique-id": 1,
        "process-mode": 1,  # whole frames
        "onnx-file": "model.onnx",
        "model-engine-file": f"model.onnx_b{plan.batch}_gpu0_{plan.precision}.engine",
        "labelfile-path": "labels.txt",
        "batch-size": plan.batch,
        "network-mode": _NETWORK_MODES[plan.precision],
        **({"int8-calib-file": _CACHE_NAME} if plan.cache is not None else {}),
        "workspace-size": plan.workspace,
        "infer-dims": f"3;{manifest.input.height};{manifest.input.width}",
        "network-input-order": 0,  # planes
        "model-color-format": 1,  # BGR
        "net-scale-factor": 1.0,
        "offsets": ";".join(f"{value:.9g}" for value in mean),
        "maintain-aspect-ratio": int(manifest.input.fit == "letterbox"),
        "symmetric-padding": 0,
        "network-type": 2,  # segmentation
        "num-detected-classes": len(manifest.classes),
        "output-blob-names": PROBABILITIES_NAME,
        "segmentation-threshold": 0.0,
        "segmentation-output-order": 0,  # classes before rows and columns
    }
    lines = "".join(f"{key}={value}\n" for key, value in properties.items())
    left = "".join(f"# Not carried over. {sentence}\n" for sentence in plan.result.not_carried)
    return f"# {manifest.name} for gst-nvinfer, written by fcn-build export deepstream\n{left}\n[property]\n{lines}"
