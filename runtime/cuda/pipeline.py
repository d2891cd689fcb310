"""Frame in, mask out on the GPU: upload, preprocess, network, labels, download on one stream, nothing allocated.

    frame (H, W, 3) → [upload] → preprocess → network → scores_to_labels → overlay, if asked → [download] → mask (H, W)

On an integrated GPU frame and mask lie in memory that CPU and GPU share, and the copies in brackets fall away.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from time import perf_counter_ns
from typing import Any

import numpy as np

from ..errors import BackendError, UserError
from ..labels_head import LabelsHead
from ..manifest import Manifest
from ..overlay import blend
from ..segmentation import Segmentation, check_frame
from .compiler import load_kernels
from .device import Device, Event, HostBuffer, Module, Stream
from .driver import first_line
from .frame_plan import FramePlan, NetworkBuffers, PaintTable
from .geometry import labels_launch, preprocess_launch
from .network import DeviceNetwork
from .paint import Paint

GPU_STAGES = ("upload", "preprocess", "network", "labels", "overlay", "download")
"""Keys of `Segmentation.gpu_ms`, in the order of the stream. What a labels head gives is resized on the CPU."""
NOT_FINITE = 255
"""What scores_to_labels gives where scores are not finite; no class has this id."""
FRAME_SIZES = 4
"""How many sizes of frames keep their memory at a time: as many cameras may take turns."""

_log = logging.getLogger(__name__)


def check_frame_path(device: Device, manifest: Manifest) -> None:
    """Raise what `FramePipeline` would for this GPU and this bundle, whatever the network.

    For those whose network takes minutes to get: kernels that had to be compiled for this lie in the cache afterwards.
    Raises BackendError and UserError as `load_kernels` does, BackendError for a head that the kernels cannot upsample.
    """
    _check_geometry(manifest)
    load_kernels(device).close()


class FramePipeline:
    """Runs one network on frames of up to 16384 pixels a side. Thread-safe: calls take turns.

    Memory of the GPU is taken for the first frame of a size and at no other time, and kept for the last FRAME_SIZES
    sizes that came, for fewer where it is scarce; what else a call allocates is the caller's own mask, and with `out`
    not even that.

    device: stays its opener's to close, after the pipeline. network: belongs to the pipeline from here on, which
    closes it, also when this raises: as `check_frame_path`, and BackendError when memory is full.
    manifest: of the network's bundle. filter_mode: of scores, "linear" or "point", as BilinearHead has it.
    """

    def __init__(self, device: Device, network: DeviceNetwork, manifest: Manifest, filter_mode: str = "linear"):
        self._filter_mode = filter_mode
        self._device, self._network, self._manifest = device, network, manifest
        self._turn = threading.Lock()
        self._size = (manifest.input.height, manifest.input.width)
        self._palette = np.array(manifest.palette, np.uint8)
        self._labels_head = LabelsHead(len(manifest.classes)) if manifest.head.kind == "labels" else None
        self._plans: dict[tuple[int, int], FramePlan] = {}  # by the frame's size, the one used last at the end
        self._host_io: tuple[HostBuffer, HostBuffer] | None = None
        self._interrupted = False
        self._closed, self._closing, self._infer_buffers = False, contextlib.ExitStack(), contextlib.ExitStack()
        self._network_closing = contextlib.ExitStack()
        self._network_closing.callback(network.close)
        self._closing.callback(self._network_closing.close)
        try:
            with device.current():
                self._open()
        except BaseException:
            self.close()
            raise

    def segment(self, frame: np.ndarray, *, out: np.ndarray | None = None, paint: Paint | None = None) -> Segmentation:
        """The mask of a frame at the frame's own size, with the times of its stages on the GPU (`GPU_STAGES`).

        frame: (H, W, 3) uint8 BGR, any memory layout, left as it is. out: (H, W) uint8 to write the mask into; None:
        a new array. paint: give the overlay as well, a new array. Raises UserError for another kind of frame or `out`
        and for more than 16384 pixels a side, BackendError when closed and when the GPU fails.
        """
        check_frame(frame)
        frame_size = (frame.shape[0], frame.shape[1])
        _check_out(out, frame_size)
        with self._turn, self._running():
            started = perf_counter_ns()
            plan = self._plan_for(frame_size)
            np.copyto(plan.frame, frame)
            copied = perf_counter_ns()
            self._enqueue(plan, paint if self._labels_head is None else None)
            self._stream.synchronize()
            mask = self._mask(plan, out)
            overlay = None if paint is None else self._overlay(plan, mask, paint)
            gpu_ms = self._gpu_ms()
            total_ms = (perf_counter_ns() - started) / 1e6
        preprocess_ms = (copied - started) / 1e6 + gpu_ms["upload"] + gpu_ms["preprocess"]
        head_ms = max(0.0, total_ms - preprocess_ms - gpu_ms["network"])
        return Segmentation(mask, preprocess_ms, gpu_ms["network"], head_ms, gpu_ms, overlay)

    def infer(self, image: np.ndarray) -> np.ndarray:
        """(1, H, W, 3) uint8 BGR at the network's size → its output, a new array, as `Backend.infer` has it."""
        expected = (1, *self._size, 3)
        if image.dtype != np.uint8 or image.shape != expected:
            raise BackendError(f"the image is {image.dtype} {image.shape}, the network takes uint8 {expected}.")
        with self._turn, self._running():
            source, target = self._host_buffers()
            np.copyto(source.array, image)
            self._device.upload(self._buffers.image, source, self._stream)
            self._network.enqueue()
            self._device.download(target, self._buffers.output, self._stream)
            self._stream.synchronize()
            return target.array.copy()

    def close(self) -> None:
        """Free everything, the network's memory too, after the frame that runs; more than once does no harm."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            with contextlib.ExitStack() as context:
                with contextlib.suppress(BackendError):  # a lost GPU has no context, and keeps nothing either
                    context.enter_context(self._device.current())
                try:
                    self._closing.close()  # all of it, whatever fails
                except BackendError as error:
                    _log.info("not everything on the GPU was freed: %s", first_line(error))

    # --- memory

    def _open(self) -> None:
        device, network = self._device, self._network
        _check_geometry(self._manifest)
        self._stream: Stream = self._own(device.stream())
        self._events: list[Event] = [self._own(device.event()) for _ in range(len(GPU_STAGES) + 1)]
        self._kernels: Module = self._own(load_kernels(device))
        nbytes = int(np.prod(network.output_shape)) * network.output_dtype.itemsize
        self._buffers = NetworkBuffers(
            self._own(device.device_buffer(3 * self._size[0] * self._size[1], "the network's input")),
            self._own(device.device_buffer(nbytes, "the network's output")),
            network.output_shape,
            network.output_dtype,
        )
        self._table: PaintTable = self._own(PaintTable(device, self._manifest))
        self._closing.callback(self._drop_plans)
        self._closing.callback(self._infer_buffers.close)
        self._closing.callback(self._network_closing.close)  # before the stream and the buffers that it knows
        self._closing.callback(self._settle)  # called first: nothing is freed under a kernel that runs
        network.bind(self._buffers.image.address, self._buffers.output.address, self._stream.handle)

    def _own(self, resource: Any) -> Any:
        self._closing.callback(resource.close)
        return resource

    def _settle(self) -> None:
        with self._device.current():
            self._stream.synchronize()

    def _plan_for(self, frame_size: tuple[int, int]) -> FramePlan:
        plan = self._plans.pop(frame_size, None) or self._new_plan(frame_size)
        self._plans[frame_size] = plan
        return plan

    def _new_plan(self, frame_size: tuple[int, int]) -> FramePlan:
        while len(self._plans) >= FRAME_SIZES:
            self._plans.pop(next(iter(self._plans))).close()
        parts = self._device, self._kernels, self._manifest, self._buffers, frame_size, self._filter_mode
        if self._plans:
            with contextlib.suppress(BackendError):  # full, perhaps of the other sizes
                return FramePlan(*parts)
            self._drop_plans()
        return FramePlan(*parts)

    def _drop_plans(self) -> None:
        plans, self._plans = self._plans, {}
        with contextlib.ExitStack() as closing:  # all of them, whatever fails
            for plan in plans.values():
                closing.callback(plan.close)

    def _host_buffers(self) -> tuple[HostBuffer, HostBuffer]:
        """Host memory for `infer`, which most applications never call."""
        if self._host_io is None:
            device, network, closing = self._device, self._network, self._infer_buffers
            source = device.host_buffer((1, *self._size, 3), np.uint8, "the network's input")
            closing.callback(source.close)
            target = device.host_buffer(network.output_shape, network.output_dtype, "the network's output")
            closing.callback(target.close)
            self._host_io = source, target
        return self._host_io

    # --- one frame

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        if self._closed:
            raise BackendError("the GPU backend is closed; open another Segmenter.")
        with self._device.current():
            if self._interrupted:  # what an earlier call has left on the stream still reads and writes the buffers
                self._stream.synchronize()
            self._interrupted = True
            yield
            self._interrupted = False

    def _enqueue(self, plan: FramePlan, paint: Paint | None) -> None:
        """Put one frame's work on the stream, an event between any two stages."""
        stream, moments = self._stream, iter(self._events)
        next(moments).record(stream)
        plan.upload(stream)
        next(moments).record(stream)
        plan.preprocess(stream)
        next(moments).record(stream)
        self._network.enqueue()
        next(moments).record(stream)
        plan.label(stream)
        next(moments).record(stream)
        if paint is not None:
            self._table.upload(paint, stream)
            plan.overlay(paint, self._table, stream)
        next(moments).record(stream)
        plan.download(stream, painted=paint is not None)
        next(moments).record(stream)

    def _mask(self, plan: FramePlan, out: np.ndarray | None) -> np.ndarray:
        """The caller's own array: the plan's is overwritten by the next frame."""
        if self._labels_head is not None:
            mask = self._labels_head.labels(plan.labels, plan.frame_size, plan.content)
        else:
            if plan.labels.max() == NOT_FINITE:
                raise UserError("scores hold NaN or infinity; the network overflowed: run it in float32 to see where")
            mask = plan.labels if out is not None else plan.labels.copy()
        if out is None:
            return mask
        np.copyto(out, mask)
        return out

    def _overlay(self, plan: FramePlan, mask: np.ndarray, paint: Paint) -> np.ndarray:
        if self._labels_head is None:
            return plan.frame.copy()
        return blend(plan.frame, mask, self._palette, alpha=paint.alpha, ignore=paint.ignore)

    def _gpu_ms(self) -> dict[str, float]:
        pairs = zip(self._events, self._events[1:], strict=False)
        return {name: later.ms_since(earlier) for name, (earlier, later) in zip(GPU_STAGES, pairs, strict=True)}


def _check_geometry(manifest: Manifest) -> None:
    """Refuse a bundle that the kernels cannot serve; frames of the network's own size stand for all."""
    size = manifest.input.height, manifest.input.width
    preprocess_launch(manifest, size)
    if manifest.head.kind == "bilinear":
        labels_launch(manifest, size, np.float32)


def _check_out(out: np.ndarray | None, frame_size: tuple[int, int]) -> None:
    if out is not None and (out.dtype != np.uint8 or out.shape != frame_size or not out.flags.writeable):
        raise UserError(
            f"out is {out.dtype} {out.shape}; it must be uint8 {frame_size}, the frame's size, to write to."
        )
