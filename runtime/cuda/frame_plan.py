"""What one size of frames needs on the GPU: its buffers, and its kernels' launches with all their arguments."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..manifest import Manifest
from ..palette import VOID, full_palette
from .device import Device, DeviceBuffer, HostBuffer, Module, Stream
from .geometry import KernelLaunch, content_size, labels_launch, overlay_launch, preprocess_launch
from .paint import Paint

_PALETTE_BYTES, _TABLE_BYTES = 3 * 256, 4 * 256


@dataclass(frozen=True)
class NetworkBuffers:
    """The network's memory: image (1, h, w, 3) uint8 in, output of this shape and dtype out."""

    image: DeviceBuffer
    output: DeviceBuffer
    output_shape: tuple[int, ...]
    output_dtype: np.dtype


class FramePlan:
    """Buffers and launches for frames of one size. Not thread-safe; close it with the GPU's context current.

    On an integrated GPU the kernels work in the CPU's memory, and there are no copies to make.
    Raises, with nothing taken: UserError and BackendError as the launches of `geometry`, BackendError for full memory.
    """

    def __init__(
        self,
        device: Device,
        kernels: Module,
        manifest: Manifest,
        network: NetworkBuffers,
        frame_size: tuple[int, int],
        filter_mode: str = "linear",
    ):
        self.frame_size = frame_size
        self.content = content_size(manifest, frame_size)
        self._device, self._kernels = device, kernels
        self._closing = contextlib.ExitStack()
        self._paint: tuple[Paint, _Bound] | None = None
        self._has_scores = manifest.head.kind == "bilinear"
        # First what may be refused, then the memory.
        preprocess = preprocess_launch(manifest, frame_size)
        labels: KernelLaunch | None = None
        if self._has_scores:
            labels = labels_launch(manifest, frame_size, network.output_dtype, filter_mode)
        try:
            self._take_memory(network)
        except BaseException:
            self.close()
            raise
        pointers = np.uintp(self._frame_address), np.int32(3 * frame_size[1]), np.uintp(network.image.address)
        self._preprocess = self._bound(preprocess, pointers)
        self._labels: _Bound | None = None
        if labels is not None:
            self._labels = self._bound(labels, (np.uintp(network.output.address), np.uintp(self._labels_address)))

    @property
    def frame(self) -> np.ndarray:
        """(H, W, 3) uint8: put the frame here; after `overlay` and `download` it is painted."""
        return self._frame.array

    @property
    def labels(self) -> np.ndarray:
        """What `download` brings: the mask (H, W) uint8, or the output (1, h, w) uint8 of a labels head."""
        return self._host_labels.array

    def upload(self, stream: Stream) -> None:
        """Copy the frame to the GPU."""
        if self._device_frame is not None:
            self._device.upload(self._device_frame, self._frame, stream)

    def preprocess(self, stream: Stream) -> None:
        """Frame to network input."""
        self._preprocess.launch(stream)

    def label(self, stream: Stream) -> None:
        """Scores to labels at the frame's size; nothing where the graph has done it."""
        if self._labels is not None:
            self._labels.launch(stream)

    def overlay(self, paint: Paint, table: PaintTable, stream: Stream) -> None:
        """Paint the labels over the frame, in place. For scores only: the frame's labels must be on the GPU."""
        if self._paint is None or self._paint[0] != paint:
            pointers = (self._frame_address, self._labels_address, table.palette_address, table.painted_address)
            launch = overlay_launch(self.frame_size, paint.alpha)
            self._paint = paint, self._bound(launch, tuple(map(np.uintp, pointers)))
        self._paint[1].launch(stream)

    def download(self, stream: Stream, *, painted: bool) -> None:
        """Copy the labels back, and the painted frame."""
        if self._device_labels is not None:
            self._device.download(self._host_labels, self._device_labels, stream)
        if painted and self._device_frame is not None:
            self._device.download(self._frame, self._device_frame, stream)

    def close(self) -> None:
        """Free the buffers."""
        self._closing.close()

    def _take_memory(self, network: NetworkBuffers) -> None:
        device, (height, width) = self._device, self.frame_size
        self._frame: HostBuffer = self._own(device.host_buffer((height, width, 3), np.uint8, "the frame"))
        self._device_frame: DeviceBuffer | None = None
        self._frame_address = self._frame.address
        if not device.integrated:
            on_gpu: DeviceBuffer = self._own(device.device_buffer(self._frame.nbytes, "the frame"))
            self._device_frame, self._frame_address = on_gpu, on_gpu.address
        shape = self.frame_size if self._has_scores else network.output_shape
        self._host_labels: HostBuffer = self._own(device.host_buffer(shape, np.uint8, "the mask"))
        self._labels_address = self._host_labels.address
        self._device_labels: DeviceBuffer | None = None
        if not self._has_scores:
            self._device_labels = network.output
        elif not device.integrated:
            labels: DeviceBuffer = self._own(device.device_buffer(self._host_labels.nbytes, "the mask"))
            self._device_labels, self._labels_address = labels, labels.address

    def _own(self, resource: Any) -> Any:
        self._closing.callback(resource.close)
        return resource

    def _bound(self, launch: KernelLaunch, pointers: tuple[np.number, ...]) -> _Bound:
        return _Bound(self._kernels, launch, (*pointers, *launch.arguments))


class PaintTable:
    """Colours of the classes, and which of them are painted, in the GPU's memory."""

    def __init__(self, device: Device, manifest: Manifest):
        self._device, self._closing = device, contextlib.ExitStack()
        try:
            self._host: HostBuffer = device.host_buffer((_TABLE_BYTES,), np.uint8, "the palette")
            self._closing.callback(self._host.close)
            self._table: DeviceBuffer = device.device_buffer(_TABLE_BYTES, "the palette")
            self._closing.callback(self._table.close)
        except BaseException:
            self.close()
            raise
        colours = full_palette(np.array(manifest.palette, np.uint8))[:, ::-1]  # RGB to the frame's BGR
        self._host.array[:_PALETTE_BYTES] = colours.ravel()
        self.palette_address = self._table.address
        self.painted_address = self._table.address + _PALETTE_BYTES

    def upload(self, paint: Paint, stream: Stream) -> None:
        """Bring the table to the GPU: one kilobyte, asynchronously, when no earlier upload is under way."""
        painted = self._host.array[_PALETTE_BYTES:]
        painted[:] = 1
        painted[VOID] = 0
        for class_id in paint.ignore:
            painted[class_id] = 0
        self._device.upload(self._table, self._host, stream)

    def close(self) -> None:
        """Free the table."""
        self._closing.close()


@dataclass(frozen=True)
class _Bound:
    """A kernel with everything that it is launched with."""

    kernels: Module
    kernel: KernelLaunch
    arguments: tuple[np.number, ...]

    def launch(self, stream: Stream) -> None:
        self.kernels.launch(self.kernel.name, self.arguments, self.kernel.block, self.kernel.grid, stream)
