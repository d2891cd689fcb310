"""How much accuracy a typed graph loses: its scores, labels and mIoU on labelled pictures, against the FP32 graph's.

Signal to noise is taken over scores *centred over the classes* of each grid point: argmax does not see what moves all
classes alike, so neither should the measure.

    SQNR = 10 log10( Σ s² / Σ (s - s')² ),    s, s' = centred scores of FP32 and of the graph, summed over all pictures

The drop of mIoU comes with its standard error, the paired jackknife over the pictures (Efron and Stein, "The jackknife
estimate of variance", Annals of Statistics 9, 1981): d_i is the drop without picture i, and

    error = sqrt( (n - 1) / n · Σ (d_i - mean d)² ).
"""

from __future__ import annotations

import contextlib
import logging
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from fcnedge.calibration.activations import load_graph
from fcnedge.calibration.miou import ConfusionMatrix
from fcnedge.calibration.spacing import evenly_spaced
from fcnedge.calibration.voc import VocSample, read_voc, read_voc_images, splits
from fcnedge.runtime import BilinearHead
from fcnedge.runtime.command import Progress
from fcnedge.runtime.errors import BackendError, UserError
from fcnedge.runtime.preprocessing import fit_frame

from .activation_range import TensorRanges
from .int8 import to_int8
from .placement import Placement
from .simulation import open_simulated

SQNR_PICTURES = 16
"""Scores are thousands of numbers each: their noise is known after a few pictures, mIoU is not."""

_TRAIN, _CALIBRATION, _VAL = "train", "calibration", "val"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """One graph on all pictures. miou: share of 1; drop: percentage points of mIoU below FP32's.

    drop_error: standard error of the drop, NaN for one picture; sqnr_db: of the scores, infinite when they are equal;
    labels_equal: share of all pixels, void too, with FP32's label.
    """

    miou: float
    drop: float
    drop_error: float
    sqnr_db: float
    labels_equal: float


@dataclass(frozen=True, eq=False)
class _Picture:
    """One picture, prepared. image: (1, H, W, 3) uint8; truth, labels: compressed masks at frame_size.

    scores: FP32's, (C, h, w) float32, centred, where they are kept; counts: FP32's confusion matrix.
    """

    name: str
    image: np.ndarray
    frame_size: tuple[int, int]
    content: tuple[int, int]
    truth: bytes
    labels: bytes
    scores: np.ndarray | None
    counts: np.ndarray


class LabelledPictures:
    """Pictures with masks, prepared once: fitted, run through the FP32 graph, and scored.

    fp32: graph with input `image` (1, H, W, 3) uint8 and output scores (1, C, h, w) float; size: its (height, width);
    fit: "stretch" or "letterbox"; head: from scores to labels; subset: class ids that mIoU is the mean of, None for
    all that occur; sqnr_pictures: how many, from the first, the SQNR is measured on; threads: of one inference, None
    for one per core.

    Memory: 3·H·W bytes a picture and 4·C·h·w for each of sqnr_pictures (0.8 and 0.3 MB at 512x512 and stride 8); masks
    are kept compressed, at a hundredth of their size. Whatever is decoded is one picture's.
    Raises UserError when there is no picture, none has a pixel that counts, one cannot be read, a mask does not fit
    picture or model, or the graph gives labels instead of scores.
    """

    def __init__(
        self,
        fp32: Path,
        samples: Sequence[VocSample],
        size: tuple[int, int],
        fit: str,
        head: BilinearHead,
        *,
        subset: Sequence[int] | None = None,
        sqnr_pictures: int = SQNR_PICTURES,
        threads: int | None = None,
    ) -> None:
        if not samples:
            raise UserError("there are no labelled pictures to measure on; name a split that has some.")
        self._head, self._subset, self._threads = head, subset, threads
        run = self._open(fp32)
        self._pictures: list[_Picture] = []
        with contextlib.closing(Progress()) as progress:
            for index, sample in enumerate(samples):
                progress("run in FP32", index, len(samples))
                image, frame_size, content = _fitted(sample, size, fit)
                scores = run(image)
                labels = head.labels(scores, frame_size, content)
                kept = _centred(scores) if index < sqnr_pictures else None
                truth, counts = _scored(sample, labels, scores.shape[1])
                self._pictures.append(
                    _Picture(sample.name, image, frame_size, content, truth, _packed(labels), kept, counts)
                )
        self.miou = self._mean_iou(sum(picture.counts for picture in self._pictures))
        if math.isnan(self.miou):
            raise UserError(
                f"no pixel of the {len(samples)} masks counts for mIoU (void, or classes left out); choose others."
            )

    def __len__(self) -> int:
        return len(self._pictures)

    def sqnr_db(self, graph: bytes | Path) -> float:
        """SQNR of a graph's scores in dB, on the first `sqnr_pictures` only. Raises UserError as `measure`."""
        run, noise = self._open(graph), _Noise()
        for picture in self._pictures:
            if picture.scores is not None:
                noise.add(picture.scores, run(picture.image))
        return noise.sqnr_db

    def measure(self, graph: bytes | Path) -> Measured:
        """Run a graph with the same input and output over all pictures.

        Raises UserError when its scores hold NaN or infinity, and what `open_simulated` raises.
        """
        run, noise, counts, equal, pixels = self._open(graph), _Noise(), [], 0, 0
        for picture in self._pictures:
            scores = run(picture.image)
            if picture.scores is not None:
                noise.add(picture.scores, scores)
            labels = self._head.labels(scores, picture.frame_size, picture.content)
            matrix = ConfusionMatrix(scores.shape[1])
            matrix.add(_unpacked(picture.truth, picture.frame_size), labels)
            counts.append(matrix.counts)
            equal += int(np.count_nonzero(labels == _unpacked(picture.labels, picture.frame_size)))
            pixels += labels.size
        miou = self._mean_iou(sum(counts))
        return Measured(
            miou=miou,
            drop=100 * (self.miou - miou),
            drop_error=self._drop_error(counts),
            sqnr_db=noise.sqnr_db,
            labels_equal=equal / pixels,
        )

    def _open(self, graph: bytes | Path) -> _Run:
        return _Run(graph, self._threads)

    def _mean_iou(self, counts: Any) -> float:
        matrix = ConfusionMatrix(len(counts))
        matrix.counts = counts
        return matrix.mean_iou(self._subset)

    def _drop_error(self, counts: Sequence[np.ndarray]) -> float:
        """Standard error of the drop in points: the paired jackknife of the module's docstring."""
        n, first, second = len(counts), sum(picture.counts for picture in self._pictures), sum(counts)
        drops = [
            100 * (self._mean_iou(first - picture.counts) - self._mean_iou(second - found))
            for picture, found in zip(self._pictures, counts, strict=True)
        ]
        return (
            math.sqrt((n - 1) / n * float(np.square(np.subtract(drops, np.mean(drops))).sum())) if n > 1 else math.nan
        )


def int8_bytes(
    fp32: Path, ranges: TensorRanges, placement: Placement, elsewhere: Literal["fp16", "fp32"] = "fp32"
) -> bytes:
    """The FP32 graph in `fp32`, quantised as `placement` says, serialised with all its weights. Raises as to_int8."""
    model = load_graph(fp32)
    to_int8(model, ranges, placement, elsewhere=elsewhere)
    ir.external_data.load_to_model(model)  # no folder from which ONNX Runtime could read them
    return ir.to_proto(model).SerializeToString()


def choose_samples(data: Path, split: str | None, images: int) -> list[VocSample]:
    """Choose `images` labelled pictures of a VOC folder, evenly spaced: always the same ones for the same folder.

    split: list of pictures; None takes `train` without what the list `calibration` names, if there is one: neither what
    accuracy is reported on nor what the ranges were made from. Fewer than asked for, and `val`, are logged as warnings.
    Raises UserError for a folder that is not VOC's, a split that is unknown, and one with nothing left.
    """
    name = _TRAIN if split is None else split
    samples = read_voc(data, name)
    if split is None and _CALIBRATION in splits(data):
        calibrated = {known for known, _ in read_voc_images(data, _CALIBRATION)}
        samples = [sample for sample in samples if sample.name not in calibrated]
        if not samples:
            raise UserError(f"all pictures of the split {_TRAIN} are in {_CALIBRATION} too; name one with --split.")
    if name == _VAL:
        _log.warning("these are the pictures that accuracy is reported on; choose layers on others, such as train.")
    if len(samples) < images:
        _log.warning("there are %d pictures, %d were asked for; all of them are taken.", len(samples), images)
    return evenly_spaced(samples, images)


class _Run:
    """An open graph: (1, H, W, 3) uint8 → (1, C, h, w) float32. Raises UserError when it gives no scores."""

    def __init__(self, graph: bytes | Path, threads: int | None) -> None:
        self._session = open_simulated(graph, threads)
        (given, *_), (made, *_) = self._session.get_inputs(), self._session.get_outputs()
        if made.type not in ("tensor(float)", "tensor(float16)"):
            raise UserError(
                f"the graph gives {made.name} of {made.type}, where class scores are needed to compare; "
                "use a model whose last upsampling is bilinear."
            )
        self._input = given.name

    def __call__(self, image: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(self._session.run(None, {self._input: image})[0], np.float32)
        except Exception as error:  # onnxruntime's exception types are private
            raise BackendError(f"onnxruntime failed on this graph: {str(error).splitlines()[0][:300]}") from error


class _Noise:
    """Sums of squares over the pictures so far, in float64."""

    def __init__(self) -> None:
        self._signal = self._noise = 0.0

    def add(self, reference: np.ndarray, scores: np.ndarray) -> None:
        self._signal += float(np.square(reference, dtype=np.float64).sum())
        self._noise += float(np.square(np.subtract(reference, _centred(scores), dtype=np.float64)).sum())

    @property
    def sqnr_db(self) -> float:
        if self._noise == 0:
            return math.inf
        return 10 * math.log10(self._signal / self._noise) if self._signal else -math.inf


def _centred(scores: np.ndarray) -> np.ndarray:
    """(1, C, h, w) → (C, h, w) float32, with mean 0 over the classes of each grid point."""
    return scores[0] - scores[0].mean(axis=0, dtype=np.float64).astype(np.float32)


def _fitted(sample: VocSample, size: tuple[int, int], fit: str) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
    """Network input (1, H, W, 3), size of the picture, and the size that it takes in the input."""
    frame = sample.read_image()
    image, content = fit_frame(frame, size, fit)
    return image[None], (frame.shape[0], frame.shape[1]), content


def _scored(sample: VocSample, labels: np.ndarray, classes: int) -> tuple[bytes, np.ndarray]:
    """The mask, compressed, and the (C, C) int64 counts of `labels` against it."""
    truth, matrix = sample.read_mask(), ConfusionMatrix(classes)
    try:
        matrix.add(truth, labels)
    except ValueError as error:
        raise UserError(f"{sample.mask_path} does not fit its picture or the model: {error}.") from error
    return _packed(truth), matrix.counts


def _packed(mask: np.ndarray) -> bytes:
    return zlib.compress(np.ascontiguousarray(mask).tobytes(), 1)


def _unpacked(data: bytes, size: tuple[int, int]) -> np.ndarray:
    return np.frombuffer(zlib.decompress(data), np.uint8).reshape(size)
