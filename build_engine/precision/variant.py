"""A typed graph beside the FP32 one: converted, saved, and compared with it on pictures before anyone may have it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from fcnedge.calibration.activations import load_graph
from fcnedge.calibration.ranges import Ranges
from fcnedge.runtime import BilinearHead
from fcnedge.runtime.errors import BackendError, UserError

from ..export import INLINE_LIMIT_BYTES, save_onnx
from .float32_layers import KeptLayer
from .fp16 import to_fp16
from .int8 import to_int8
from .placement import Exclusion, Placement, place
from .simulation import open_simulated

MIN_LABELS_EQUAL = 0.9
"""A typed graph with FP32's label on a smaller share of the pixels is broken, not less exact.

Measured with fcn8s-lite0-voc on the demo photographs: FP16 keeps 99.98% of the labels and INT8 99.5%, 98.8% with ranges
of only 24 pictures; ranges fifty times too small keep none of them, or half. fcn8s-vgg16 with random weights, which
decides nothing clearly, keeps 95.6% in INT8. Accuracy is another matter: a graph with 90% of the labels may
still have lost ten points of mIoU, which `--max-drop` measures.
"""


@dataclass(frozen=True)
class Form:
    """How one graph of a precision is written. target: what for, one of GRAPH_TARGETS, None for every backend.

    elsewhere: type of what INT8 leaves in float; activations: of the integers between its layers; depthwise: whether
    depthwise convolutions are in INT8.
    """

    precision: str
    target: str | None = None
    elsewhere: Literal["fp16", "fp32"] = "fp16"
    activations: Literal["int8", "uint8"] = "int8"
    depthwise: bool = True

    @property
    def file(self) -> str:
        """`model.int8.onnx`, `model.int8.vnni.onnx`."""
        return f"model.{'.'.join(self._words)}.onnx"

    @property
    def title(self) -> str:
        """`int8`, `int8 vnni`."""
        return " ".join(self._words)

    @property
    def _words(self) -> tuple[str, ...]:
        return (self.precision,) if self.target is None else (self.precision, self.target)


FORMS = {
    "fp16": (Form("fp16"),),
    "int8": (
        Form("int8", None, "fp32"),
        Form("int8", "vnni", "fp32", "uint8"),
        Form("int8", "tensorrt", "fp16", depthwise=False),
    ),
}
"""The graphs that a bundle holds of each precision beside FP32.

INT8 has three. Symmetric int8 with float32 elsewhere runs rightly everywhere, on TensorRT 8.5 too. CPUs with VNNI
multiply unsigned by signed bytes, and are slower where both are signed (benchmarks/int8_forms.py). A strongly typed
TensorRT network takes what INT8 leaves over in exactly the types of the graph: there it is float16; ONNX Runtime gets
that graph wrong, its optimiser WeightBiasQuantization (seen in 1.32) multiplies two float16 scales, which underflows.
On CPUs depthwise convolutions in float cost more in conversions than INT8 saves elsewhere; TensorRT-RTX (1.7) pads each
channel of one in INT8 to four, weights and activations alike, and its engine of lite0 is four times as large.
"""


@dataclass(frozen=True)
class VariantReport:
    """One typed graph. bytes: of `file` with the file that holds its weights; share_of_fp32: of the FP32 graph's.

    target: what the graph is for, None for every backend.

    labels_equal: share of all pixels, at the network's size, with FP32's label; score_sqnr_db: signal to noise of the
    scores, infinite when they are equal, NaN for a graph that gives labels. int8_layers: convolutions in INT8;
    float_layers: the others and the deconvolutions, with the reason, and float32_layers: what is not even FP16.
    """

    precision: str
    target: str | None
    file: str
    bytes: int
    share_of_fp32: float
    labels_equal: float
    score_sqnr_db: float
    int8_layers: tuple[str, ...]
    float_layers: tuple[Exclusion, ...]
    float32_layers: tuple[KeptLayer, ...]

    @property
    def title(self) -> str:
        """As in Form."""
        return Form(self.precision, self.target).title

    def check(self) -> None:
        """Raise UserError when labels are so unlike FP32's that something must have gone wrong."""
        if not self.labels_equal >= MIN_LABELS_EQUAL:
            raise UserError(
                f"the {self.title} graph disagrees with fp32, so no bundle was written: {self.labels_equal:.1%} of "
                f"the labels are equal, {MIN_LABELS_EQUAL:.0%} are needed; collect the ranges on pictures like those "
                f"that the model will see, with fcn-calibrate ranges."
            )


class Fp32Reference:
    """What the FP32 graph says about some pictures, for typed graphs to be compared with.

    graph: file of the FP32 graph; images: (H, W, 3) uint8 BGR at the network's size; head: None for a graph that gives
    labels. Keeps scores and labels (4·C·h·w + H·W bytes a picture), and neither graph nor weights.
    """

    def __init__(self, graph: Path, images: Sequence[np.ndarray], head: BilinearHead | None) -> None:
        self.graph, self._images, self._head = graph, images, head
        self._answers = list(self._run(graph, "fp32"))

    def compare(self, graph: Path, precision: str) -> tuple[float, float]:
        """(share of equal labels, SQNR of the scores in dB) of a typed graph over all pictures.

        Scores are centred over the classes first: argmax does not see what moves all classes alike.
        Raises UserError when the graph gives NaN or infinity, BackendError when ONNX Runtime cannot run it.
        """
        equal = pixels = 0
        signal = noise = 0.0
        for (output, labels), (expected, expected_labels) in zip(
            self._run(graph, precision), self._answers, strict=True
        ):
            equal += int(np.count_nonzero(labels == expected_labels))
            pixels += labels.size
            if self._head is not None:
                reference = _centred(expected)
                signal += float(np.square(reference).sum())
                noise += float(np.square(_centred(output) - reference).sum())
        return equal / pixels, math.nan if self._head is None else _decibel(signal, noise)

    def _run(self, graph: Path, precision: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(output without its first axis, labels (H, W) uint8) of each picture; the graph is released at the end."""
        session = open_simulated(graph)
        for image in self._images:
            try:
                output = session.run(None, {"image": image[None]})[0][0]
            except Exception as error:  # onnxruntime's exception types are private
                reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
                raise BackendError(f"onnxruntime failed on the {precision} graph: {reason}") from error
            if self._head is None:
                yield output, output
                continue
            if not np.isfinite(output).all():
                raise UserError(
                    f"the {precision} graph gives NaN or infinite scores, so no bundle was written: an activation "
                    f"went beyond what the ranges allow for; collect them on more pictures with fcn-calibrate ranges."
                )
            size = (image.shape[0], image.shape[1])
            yield output, self._head.labels(output, size, size)


def write_variant(
    form: Form, ranges: Ranges, folder: Path, *, reference: Fp32Reference, exclude: Collection[str] = ()
) -> VariantReport:
    """Convert the FP32 graph of `reference`, save it in `folder` and compare the two; whether that is enough: `check`.

    ranges: of the FP32 graph; exclude: names of convolutions that INT8 leaves in float. Weights above 64 MB go to a
    `.data` file beside the graph. Holds one graph at a time.
    Raises UserError as to_fp16, to_int8 and `place` do, when no convolution is left for INT8, and as `compare` does.
    """
    path = folder / form.file
    placed, float32, written = _convert(reference.graph, form, ranges, path, exclude)
    labels_equal, score_sqnr_db = reference.compare(path, form.title)
    size = sum(path.stat().st_size for path in written)
    return VariantReport(
        precision=form.precision,
        target=form.target,
        file=form.file,
        bytes=size,
        share_of_fp32=size / graph_bytes(reference.graph),
        labels_equal=labels_equal,
        score_sqnr_db=score_sqnr_db,
        int8_layers=() if placed is None else tuple(layer.node for layer in placed.layers),
        float_layers=() if placed is None else placed.excluded,
        float32_layers=float32,
    )


def graph_bytes(graph: Path) -> int:
    """Bytes of a graph's file, with those of the `.data` file beside it where there is one."""
    files = (graph, graph.with_name(graph.name + ".data"))
    return sum(file.stat().st_size for file in files if file.exists())


def _convert(
    fp32: Path, form: Form, ranges: Ranges, path: Path, exclude: Collection[str]
) -> tuple[Placement | None, tuple[KeptLayer, ...], list[Path]]:
    """(placement, None for fp16; layers left in float32; files written). The graph is released on return."""
    model, placed = load_graph(fp32), None
    if form.precision == "int8":
        placed = place(model, exclude=exclude, depthwise=form.depthwise)
        if not placed.layers:
            raise UserError(
                "no convolution of this graph is left to run in INT8, so an int8 graph would be the fp16 one; "
                "ask for fp16, or exclude fewer layers."
            )
        quantised = to_int8(model, ranges.tensors, placed, elsewhere=form.elsewhere, activations=form.activations)
        float32 = quantised.float32
    else:
        float32 = to_fp16(model, ranges=ranges.tensors).float32
    _hold_small_weights(model)
    path.with_name(path.name + ".data").unlink(missing_ok=True)  # of an earlier, larger attempt
    return placed, float32, save_onnx(model, path)


def _hold_small_weights(model: ir.Model) -> None:
    """Read what still lies in the FP32 graph's `.data` file, if the model will be one file: it would point there."""
    values = [value for value in model.graph.initializers.values() if value.const_value is not None]
    if sum(value.const_value.nbytes for value in values if value.const_value is not None) > INLINE_LIMIT_BYTES:
        return
    for value in values:
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.tensor(np.array(value.const_value.numpy()), name=value.name)


def _centred(scores: np.ndarray) -> np.ndarray:
    exact = scores.astype(np.float64)
    return exact - exact.mean(axis=0)


def _decibel(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
