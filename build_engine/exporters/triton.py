"""`fcn-build export triton`: a model in the layout of a Triton model repository.

    REPOSITORY/NAME/config.pbtxt  labels.txt  README.txt  1/model.onnx (or 1/model.plan)

The configuration is a ModelConfig message as text:
https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from fcnedge.runtime import Bundle
from fcnedge.runtime.bundle import sha256_of
from fcnedge.runtime.engine_sidecar import EngineSidecar, TensorSpec, read_sidecar
from fcnedge.runtime.errors import UserError

from .batch import batch_disagreement, free_batch
from .folder import README_NAME, export_folder, exported_files, safe_name
from .labels_graph import describe, end_in_labels, open_graph, save_whole
from .onnx_file import left_to_the_caller
from .result import ExportResult, readme

_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "float16": "TYPE_FP16"}
_HOW = """
Put the folder that holds this one behind `tritonserver --model-repository`. Input `image`: {image}, BGR as OpenCV gives
it; mean, scale and channel order are in the model. Output `{output}`: {result}. labels.txt names the classes by line,
and config.pbtxt repeats names and colours under `parameters`.
"""
_NO_LABELS = (
    "Triton's classification extension: it would name positions of the mask, not classes, so no output has a "
    "label_filename."
)


@dataclass(frozen=True)
class TritonPlan:
    """Checked options. engine: with its sidecar, instead of a graph; max_batch: 1 for no batches."""

    bundle: Bundle
    repository: Path
    precision: str
    target: str | None
    engine: tuple[Path, EngineSidecar] | None
    max_batch: int
    instances: int
    device: str

    @property
    def name(self) -> str:
        """Of the model, and of its folder: Triton wants them equal."""
        return safe_name(self.bundle.manifest.name)

    @property
    def output(self) -> Path:
        """The model's folder in the repository."""
        return self.repository / self.name

    @property
    def result(self) -> ExportResult:
        """What will have been written, batches left aside: whether they work is seen when the graph is there."""
        graph = self.engine[0] if self.engine else self.bundle.model(self.precision, self.target)
        return ExportResult(
            kind="triton",
            bundle=str(self.bundle.path),
            precision=self.precision,
            graph=graph.name,
            output=str(self.output),
            not_carried=(*_left_behind(self), _NO_LABELS),
        )


def engine_of(bundle: Bundle, path: Path) -> tuple[Path, EngineSidecar]:
    """An engine that was compiled from `bundle` and that Triton can open. Raises UserError."""
    sidecar = read_sidecar(path)
    if sidecar.library != "tensorrt":
        raise UserError(
            f"{path} is an engine of TensorRT-RTX, which Triton has no backend for; compile it with TensorRT."
        )
    held = bundle.manifest.files
    if any(name not in held or held[name].sha256 != sha256 for name, sha256 in sidecar.graph.items()):
        raise UserError(f"{path} was compiled from another graph than {bundle.path} holds; compile it again.")
    if not path.is_file() or path.stat().st_size != sidecar.bytes or sha256_of(path) != sidecar.sha256:
        raise UserError(f"{path} is not the engine that its sidecar speaks of; compile it again: fcn-build engine.")
    return path, sidecar


def write_triton(plan: TritonPlan, start: Callable[[str], None]) -> ExportResult:
    """Write the model's folder. Raises UserError; then nothing was written. start: called with each step's name."""
    result, batch, sides = plan.result, 0, plan.bundle.manifest.input
    image = TensorSpec("image", "uint8", (1, sides.height, sides.width, 3))
    output = TensorSpec("labels", "uint8", (1, sides.height, sides.width))
    with export_folder(plan.output, "triton") as folder:
        if plan.engine:
            image, output = plan.engine[1].inputs[0], plan.engine[1].outputs[0]
            (folder / "1").mkdir()
            shutil.copyfile(plan.engine[0], folder / "1" / "model.plan")
        else:
            batch, reason = _write_graph(plan, folder / "1", start)
            if reason:
                result = replace(result, not_carried=(*result.not_carried, reason))
        start("write")
        (folder / "config.pbtxt").write_text(_config(plan, image, output, batch), encoding="utf-8")
        lines = "".join(f"{name}\n" for name in plan.bundle.manifest.classes)
        (folder / "labels.txt").write_text(lines, encoding="utf-8")
        text = readme(plan.name, _how(image, output, batch), result.not_carried)
        (folder / README_NAME).write_text(text, encoding="utf-8")
    return replace(result, files=exported_files(plan.output))


def _write_graph(plan: TritonPlan, folder: Path, start: Callable[[str], None]) -> tuple[int, str | None]:
    """Write the labels graph into `folder`, with a batch where that computes the same.

    Gives the most pictures at a time, 0 for no batches, and why not more.
    """
    start("head")
    folder.mkdir()
    single = save_whole(_labels_graph(plan), folder / "model.onnx")[0]
    if plan.max_batch == 1:
        return 0, None
    start(f"batches of {plan.max_batch}")
    model, tried = _labels_graph(plan), folder.with_name("batched")
    free_batch(model)
    tried.mkdir()
    reason = batch_disagreement(save_whole(model, tried / "model.onnx")[0], single, plan.max_batch)
    if reason is None:
        shutil.rmtree(folder)
        tried.rename(folder)
        return plan.max_batch, None
    shutil.rmtree(tried)
    return 0, f"Batches: the graph takes one picture at a time; {reason}"


def _labels_graph(plan: TritonPlan) -> ir.Model:
    model = open_graph(plan.bundle, plan.precision, plan.target)
    end_in_labels(model, plan.bundle.manifest)
    describe(model, plan.bundle.manifest, plan.precision)
    return model


def _left_behind(plan: TritonPlan) -> tuple[str, ...]:
    fitting, mask = left_to_the_caller(plan.bundle)
    if plan.engine is None:
        return fitting, mask
    fixed = "Batches and other GPUs: the engine takes one picture, and opens on the kind of GPU it was compiled for."
    if plan.bundle.manifest.head.kind == "labels":
        return fitting, mask, fixed
    head = plan.bundle.manifest.head
    return (
        fitting,
        f"The head: the engine gives scores at stride {head.stride}; the client interpolates them and takes the argmax "
        f"(offset {list(head.offset)}, as docs/bundle.md says; fcnedge.runtime.BilinearHead does it).",
        fixed,
    )


def _how(image: TensorSpec, output: TensorSpec, batch: int) -> str:
    sides = "x".join(map(str, image.shape[1:]))
    results = f"{output.dtype} {'x'.join(map(str, output.shape[1:]))}, " + (
        "class ids" if output.name == "labels" else "class scores"
    )
    before = f"up to {batch} times " if batch else "one picture, "
    return _HOW.format(image=f"{before}{image.dtype} {sides}", output=output.name, result=results)


def _config(plan: TritonPlan, image: TensorSpec, output: TensorSpec, batch: int) -> str:
    """config.pbtxt. Shapes have no batch dimension where Triton makes batches."""
    backend = "tensorrt" if plan.engine else "onnxruntime"
    device = "gpu" if plan.engine else plan.device
    taken, given = (tensor.shape[1:] if batch else tensor.shape for tensor in (image, output))
    manifest = plan.bundle.manifest
    parameters = {
        "arch": manifest.arch,
        "precision": plan.precision,
        "classes": json.dumps(manifest.classes, ensure_ascii=False),
        "palette": json.dumps(manifest.palette),
        "fit": manifest.input.fit,
    }
    blocks = [
        f"name: {_quoted(plan.name)}",
        f"backend: {_quoted(backend)}",
        f"max_batch_size: {batch}",
        f"input [ {{ {_tensor(image, taken)} }} ]",
        f"output [ {{ {_tensor(output, given)} }} ]",
        f"instance_group [ {{ count: {plan.instances} kind: KIND_{device.upper()} }} ]",
        *(["dynamic_batching { }"] if batch else []),
        # one picture of zeros before the model counts as ready: the first request does not wait for allocations
        f'model_warmup [ {{ name: "zeros" batch_size: 1 inputs {{ key: {_quoted(image.name)} value {{ '
        f"data_type: {_TYPES[image.dtype]} dims: {_dims(taken)} zero_data: true }} }} }} ]",
        *(
            f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
            for key, value in parameters.items()
        ),
    ]
    return "\n".join(blocks) + "\n"


def _tensor(tensor: TensorSpec, shape: Sequence[int]) -> str:
    return f"name: {_quoted(tensor.name)} data_type: {_TYPES[tensor.dtype]} dims: {_dims(shape)}"


def _dims(shape: Sequence[int]) -> str:
    return f"[ {', '.join(map(str, shape))} ]"


def _quoted(text: str) -> str:
    """A string as protobuf's text format has it; JSON's escapes are among those that it knows."""
    return json.dumps(text, ensure_ascii=False)
