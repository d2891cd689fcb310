"""Who is compared: our own rows for every backend that may work here, and the peers, each with what it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fcnedge.runtime import Bundle
from fcnedge.runtime.cuda.driver import load_driver
from fcnedge.runtime.errors import UserError

from .child import Child, ChildError
from .conversion import Converted, Converter, Slimmer
from .entry import Entry, Opened
from .hand_work import HandWork
from .keras_predict import open_keras_predict
from .litert import open_deeplab, open_litert
from .onnxruntime_peer import open_onnxruntime
from .opencv_dnn import open_opencv_dnn
from .openvino_peer import open_fused_openvino, open_openvino
from .original import Original
from .ours import open_ours

BY_HAND = "by hand"
OPENVINO_RAW = "OpenVINO on the raw export"
DEEPLAB = "DeepLab"
_CPU_BACKENDS = ("openvino", "onnxruntime")
_GPU_BACKENDS = ("tensorrt", "tensorrt_rtx", "onnxruntime_cuda")
_CPU_PRECISIONS = ("fp32", "int8")
"""fp16 is fp32 with rounded weights on a CPU: the same arithmetic, no faster."""


@dataclass(frozen=True)
class Ingredients:
    """What the rows are made from. original: or why there is none. calibration: pictures for LiteRT's INT8.

    deeplabs: .tflite files, each with how a frame is fitted to it.
    """

    bundle: Bundle
    original: Original | str
    calibration: tuple[Path, ...]
    deeplabs: tuple[tuple[Path, str], ...] = ()

    @property
    def hand(self) -> HandWork:
        """The hand work that suits the bundle's network."""
        return HandWork(self.bundle.manifest.input, self.bundle.manifest.preprocessing)


def line_up(
    given: Ingredients, folder: Path, wanted: Callable[[str], bool], progress: Callable[[str], None]
) -> list[Entry]:
    """All rows that are wanted, ours first. What peers run is converted into `folder`, and only what is needed.

    wanted: by name. A row that cannot be made says why in `reason`.
    """
    no_gpu = _why_no_gpu()
    kitchen = _Kitchen(given, folder, progress)
    with contextlib.closing(kitchen):
        makers = [*_ours(given, no_gpu is None), *_peers(given, kitchen, no_gpu)]
        return [make() for name, make in makers if wanted(name)]


def _ours(given: Ingredients, gpu: bool) -> list[tuple[str, Callable[[], Entry]]]:
    held = given.bundle.manifest.precisions
    pairs = [(backend, precision) for backend in _CPU_BACKENDS for precision in _CPU_PRECISIONS if precision in held]
    if gpu:
        pairs += [(backend, precision) for backend in _GPU_BACKENDS for precision in held]
    path = given.bundle.path.resolve()

    def entry(name: str, backend: str, precision: str) -> Entry:
        return Entry(name, partial(open_ours, path, backend, precision), precision)

    named = [(f"ours {backend} {precision}", backend, precision) for backend, precision in pairs]
    return [(words[0], partial(entry, *words)) for words in named]


def _peers(given: Ingredients, kitchen: _Kitchen, no_gpu: str | None) -> list[tuple[str, Callable[[], Entry]]]:
    hand, original = given.hand, given.original
    rows: dict[str, Callable[[str], Entry]] = {
        BY_HAND: lambda name: _run(name, kitchen.raw(), lambda path: partial(_onnxruntime_cpu, path, hand)),
        "Keras predict": lambda name: (
            Entry(name, None, reason=original)
            if isinstance(original, str)
            else Entry(name, partial(open_keras_predict, original, hand))
        ),
        "ONNX Runtime on OnnxSlim": lambda name: _run(
            name, kitchen.slim(), lambda path: partial(_onnxruntime_cpu, path, hand)
        ),
        OPENVINO_RAW: lambda name: _run(name, kitchen.raw(), lambda path: partial(open_openvino, path, hand)),
        "OpenVINO on our fused graph": lambda name: Entry(
            name, partial(open_fused_openvino, given.bundle.path.resolve())
        ),
        "OpenCV DNN": lambda name: _run(name, kitchen.raw(), lambda path: partial(open_opencv_dnn, path, hand)),
        "LiteRT float": lambda name: _run(
            name, kitchen.converted("litert_float"), lambda path: partial(open_litert, path, hand)
        ),
        "LiteRT int8": lambda name: _run(
            name,
            kitchen.converted("litert_int8", given.calibration),
            lambda path: partial(open_litert, path, hand),
        ),
    }
    classes = given.bundle.manifest.classes
    for graph, fit in given.deeplabs:
        opened = partial(open_deeplab, graph.resolve(), fit, classes)
        rows[f"{DEEPLAB} {graph.stem}"] = partial(Entry, open=opened)
    rows["ONNX Runtime CUDA on the raw export"] = lambda name: (
        Entry(name, None, reason=no_gpu)
        if no_gpu
        else _run(name, kitchen.raw(), lambda path: partial(_onnxruntime_cuda, path, hand))
    )
    rows["TensorRT on the raw export"] = lambda name: (
        Entry(name, None, reason=no_gpu)
        if no_gpu
        else _run(
            name,
            kitchen.converted("unfused_bundle", given.bundle.path.resolve()),
            lambda path: partial(open_ours, path, "tensorrt", "fp32"),
        )
    )
    return [(name, partial(make, name)) for name, make in rows.items()]


def _onnxruntime_cpu(graph: Path, hand: HandWork, threads: int) -> Opened:
    return open_onnxruntime(graph, hand, "CPUExecutionProvider", threads)


def _onnxruntime_cuda(graph: Path, hand: HandWork, threads: int) -> Opened:
    return open_onnxruntime(graph, hand, "CUDAExecutionProvider", threads)


def _run(name: str, file: Converted, opener: Callable[[Path], Callable[[int], Opened]]) -> Entry:
    if file.path is None:
        return Entry(name, None, reason=file.reason)
    return Entry(name, opener(file.path))


class _Kitchen:
    """Converts what is asked for, once each, in one child process for all conversions as long as that lives."""

    def __init__(self, given: Ingredients, folder: Path, progress: Callable[[str], None]):
        self._given, self._folder, self._progress = given, folder, progress
        self._done: dict[str, Converted] = {}
        self._child: Child | None = None

    def raw(self) -> Converted:
        """The export that tf2onnx makes by default."""
        return self.converted("onnx")

    def slim(self) -> Converted:
        """That one through OnnxSlim."""
        raw = self.raw()
        if raw.path is None:
            return raw
        self._progress("slimming the raw export")
        path = self._folder / "slim.onnx"
        try:
            with contextlib.closing(Child(Slimmer)) as child:
                child.call("slim", raw.path, path)
        except ChildError as error:
            return Converted(None, str(error))
        return Converted(path)

    def converted(self, method: str, *args: object) -> Converted:
        """What a method of Converter writes."""
        if method not in self._done:
            self._done[method] = self._convert(method, args)
        return self._done[method]

    def close(self) -> None:
        """End the converting process."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _convert(self, method: str, args: Sequence[object]) -> Converted:
        if isinstance(self._given.original, str):
            return Converted(None, self._given.original)
        self._progress(f"converting: {method.replace('_', ' ')}")
        path = self._folder / {"onnx": "raw.onnx", "unfused_bundle": "unfused"}.get(method, f"{method}.tflite")
        try:
            if self._child is None:
                self._child = Child(Converter, self._given.original, self._given.hand)
            self._child.call(method, path, *args)
        except ChildError as error:
            self.close()  # another conversion gets a fresh one: this one's memory is not known to be whole
            return Converted(None, str(error))
        return Converted(path)


def _why_no_gpu() -> str | None:
    try:
        load_driver()
    except UserError as error:
        return str(error)
    return None
