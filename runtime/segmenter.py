"""The runtime in one object: a camera frame in, a mask of class ids at the frame's own size out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from .backends import Backend, open_backend
from .bundle import Bundle
from .errors import BackendError, UserError
from .head import BilinearHead
from .preprocessing import fit_frame

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One frame's result. mask: (H, W) uint8 class ids; the times of its stages in milliseconds."""

    mask: np.ndarray
    preprocess_ms: float
    infer_ms: float
    head_ms: float

    @property
    def total_ms(self) -> float:
        """Milliseconds of all stages together."""
        return self.preprocess_ms + self.infer_ms + self.head_ms


class Segmenter:
    """Segments frames with one bundle. Thread-safe when its backend is (openvino and onnxruntime are).

    bundle: a bundle, or the path of one. backend: "auto" or a name of `BACKENDS`, or a `Backend` of your own.
    precision: "auto", "fp32", "fp16" or "int8". threads: CPU threads of one inference, None for one per core.
    Raises BundleError for a bundle that does not verify, BackendError when no backend runs it or its graph gives class
    ids that it has not.

        with Segmenter("fcn8s-lite0-voc") as segment:
            mask = segment(frame)  # (H, W, 3) uint8 BGR -> (H, W) uint8 class ids
    """

    def __init__(
        self,
        bundle: Bundle | Path | str,
        backend: str | Backend = "auto",
        precision: str = "auto",
        threads: int | None = None,
    ):
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        if isinstance(backend, str):
            backend = open_backend(self.bundle, backend, precision, threads)
        self.backend = backend
        manifest = self.bundle.manifest
        self.classes = manifest.classes
        self.palette = np.array(manifest.palette, np.uint8)
        self._size = (manifest.input.height, manifest.input.width)
        self._fit = manifest.input.fit
        self._head = BilinearHead(manifest.head.geometry) if manifest.head.kind == "bilinear" else None

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 BGR → (H, W) uint8 class ids. Raises UserError for a frame of another kind."""
        return self.segment(frame).mask

    def segment(self, frame: np.ndarray) -> Segmentation:
        """Like calling the segmenter, with the time of each stage. Raises UserError for a frame of another kind."""
        _check_frame(frame)
        started = perf_counter_ns()
        image, content = fit_frame(frame, self._size, self._fit)
        prepared = perf_counter_ns()
        output = self.backend.infer(image[None])
        inferred = perf_counter_ns()
        mask = self._to_mask(output, (frame.shape[0], frame.shape[1]), content)
        done = perf_counter_ns()
        return Segmentation(mask, (prepared - started) / 1e6, (inferred - prepared) / 1e6, (done - inferred) / 1e6)

    def close(self) -> None:
        """Release the backend; more than once does no harm."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _to_mask(self, output: np.ndarray, frame_size: tuple[int, int], content: tuple[int, int]) -> np.ndarray:
        if self._head is not None:
            return self._head.labels(output, frame_size, content)
        # Labels that the graph has chosen at the network's size: nothing is left to interpolate.
        if output.max() >= len(self.classes):
            raise BackendError(
                f"the graph gives class {output.max()}, model.json has {len(self.classes)} classes; rebuild the bundle."
            )
        rows = _nearest(frame_size[0], content[0])
        columns = _nearest(frame_size[1], content[1])
        return output[0][rows[:, None], columns]


def _nearest(frame: int, content: int) -> np.ndarray:
    return np.minimum(((np.arange(frame) + 0.5) * content / frame).astype(np.intp), content - 1)


def _check_frame(frame: np.ndarray) -> None:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        got = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise UserError(f"a frame is a NumPy array (H, W, 3) uint8 in BGR order, got {got}.")
    if 0 in frame.shape:
        raise UserError(f"the frame is empty: its shape is {frame.shape}.")
