"""The runtime in one object: a camera frame in, a mask of class ids at the frame's own size out."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from .backends import Backend, FrameBackend, open_backend
from .bundle import Bundle
from .errors import BackendError, UserError
from .head import BilinearHead, check_filter_mode
from .labels_head import LabelsHead
from .preprocessing import fit_frame
from .segmentation import Segmentation, check_frame

if TYPE_CHECKING:
    from typing_extensions import Self

_log = logging.getLogger(__name__)


class Segmenter:
    """Segments frames with one bundle. Thread-safe when its backend is (all but a backend of your own are).

    bundle: a bundle, or the path of one. backend: "auto", "cpu" or a name of `BACKENDS`, or a `Backend` of your own; a
    `FrameBackend`, as those of the GPU are, gets the whole frame. precision: "auto", "fp32", "fp16" or "int8".
    threads: CPU threads of one inference, None for one per core. fallback: "cpu" goes on with the best CPU backend,
    from the same frame on and with a warning in the log, when the backend fails in mid-run: a GPU that was lost.
    filter_mode: "linear" interpolates scores; "point" gives each pixel the class of the nearest grid point, blocky and
    cheaper (`BilinearHead`). A bundle whose graph gives labels is the same in both (`LabelsHead`).
    Raises UserError for options of another kind, BundleError for a bundle that does not verify, BackendError when no
    backend runs it or its graph gives class ids that it has not.

        with Segmenter("fcn8s-lite0-voc") as segment:
            mask = segment(frame)  # (H, W, 3) uint8 BGR -> (H, W) uint8 class ids
    """

    def __init__(
        self,
        bundle: Bundle | Path | str,
        backend: str | Backend = "auto",
        precision: str = "auto",
        threads: int | None = None,
        fallback: str | None = None,
        filter_mode: str = "linear",
    ):
        check_filter_mode(filter_mode)
        if fallback not in (None, "cpu"):
            raise UserError(f"fallback is {fallback!r}; it must be 'cpu', or None to raise what the backend raises.")
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        if isinstance(backend, str):
            backend = open_backend(self.bundle, backend, precision, threads, filter_mode)
        elif isinstance(backend, FrameBackend) and (own := getattr(backend, "filter_mode", "linear")) != filter_mode:
            raise UserError(
                f"filter_mode is {filter_mode!r} and the backend was opened with {own!r}; open both with the same."
            )
        self.backend, self.filter_mode = backend, filter_mode
        self._precision, self._threads, self._fallback = precision, threads, fallback
        self._closed, self._change = False, threading.Lock()
        manifest = self.bundle.manifest
        self.classes = manifest.classes
        self.palette = np.array(manifest.palette, np.uint8)
        self._size = (manifest.input.height, manifest.input.width)
        self._fit = manifest.input.fit
        self._head = (
            BilinearHead(manifest.head.geometry, filter_mode)
            if manifest.head.kind == "bilinear"
            else LabelsHead(len(manifest.classes))
        )

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 BGR → (H, W) uint8 class ids. Raises UserError for a frame of another kind."""
        return self.segment(frame).mask

    def segment(self, frame: np.ndarray) -> Segmentation:
        """Like calling the segmenter, with the time of each stage. Raises UserError for a frame of another kind."""
        check_frame(frame)
        backend = self.backend
        try:
            return self._segment(backend, frame)
        except BackendError as error:
            return self._segment(self._next_backend(backend, error), frame)

    def close(self) -> None:
        """Release the backend; more than once does no harm."""
        with self._change:
            self._closed = True
            self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _segment(self, backend: Backend, frame: np.ndarray) -> Segmentation:
        if isinstance(backend, FrameBackend):
            return backend.segment(frame)
        started = perf_counter_ns()
        image, content = fit_frame(frame, self._size, self._fit)
        prepared = perf_counter_ns()
        output = backend.infer(image[None])
        inferred = perf_counter_ns()
        mask = self._head.labels(output, (frame.shape[0], frame.shape[1]), content)
        done = perf_counter_ns()
        return Segmentation(mask, (prepared - started) / 1e6, (inferred - prepared) / 1e6, (done - inferred) / 1e6)

    def _next_backend(self, failed: Backend, error: BackendError) -> Backend:
        """The backend to go on with after `failed` has raised `error`, which is raised where there is none."""
        with self._change:
            if self._closed:
                raise error
            if self.backend is failed:  # else another thread was here before
                if self._fallback is None:
                    raise error
                _log.warning("backend %s failed: %s Going on with the CPU.", failed.name, str(error))
                self.backend = open_backend(
                    self.bundle, self._fallback, self._precision, self._threads, self.filter_mode
                )
                self._fallback = None
                failed.close()
            return self.backend
