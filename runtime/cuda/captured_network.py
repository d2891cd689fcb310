"""A network whose launches are recorded once, in a CUDA graph, and replayed from then on.

An engine of FCN size is some fifty kernels, and a Jetson's CPU needs longer to launch them one by one than a small one
runs; a graph is one launch. pycuda knows no stream capture, so the driver is asked itself, through ctypes:
https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html
https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html
Only the network is in the graph, whose addresses never change: frames of any size and the times of the stages are not
concerned.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from typing import Any

from ..errors import BackendError
from .driver import GPU_FAILED
from .network import DeviceNetwork

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile is their own affair

_log = logging.getLogger(__name__)


class CapturedNetwork:
    """A `DeviceNetwork` that replays another: the first frame runs as it is, the second is recorded.

    Where driver or network cannot be captured all frames run as they are, and the log says why.

    driver: stands for libcuda in tests.
    """

    def __init__(self, network: DeviceNetwork, driver: Any = None):
        self._network, self._driver = network, driver
        self.precision = network.precision
        self.output_dtype, self.output_shape = network.output_dtype, network.output_shape
        self._stream = ctypes.c_void_p()
        self._warm, self._plain = False, False
        self._replay: ctypes.c_void_p | None = None

    @property
    def captured(self) -> bool:
        """Whether frames are replayed from a graph."""
        return self._replay is not None

    def bind(self, image_address: int, output_address: int, stream_handle: int) -> None:
        """As `DeviceNetwork` has it."""
        self._network.bind(image_address, output_address, stream_handle)
        self._stream = ctypes.c_void_p(stream_handle)

    def enqueue(self) -> None:
        """As `DeviceNetwork` has it; the second call records."""
        if self._warm and not self._plain and self._replay is None:
            self._record()
        if self._replay is None:
            self._network.enqueue()  # the first prepares what later ones use, so it cannot be recorded
            self._warm = True
        elif (code := self._driver.cuGraphLaunch(self._replay, self._stream)) != 0:
            raise BackendError(f"the GPU failed: cuGraphLaunch gives error {code}; {GPU_FAILED}.")

    def close(self) -> None:
        """As `DeviceNetwork` has it."""
        replay, self._replay, self._plain = self._replay, None, True
        if replay is not None:
            self._driver.cuGraphExecDestroy(replay)
        self._network.close()

    def _record(self) -> None:
        try:
            self._replay = self._recorded()
        except (_NotCapturedError, BackendError, OSError, AttributeError) as error:  # no libcuda, or one without graphs
            self._plain = True
            _log.info("the network's launches are not recorded in a CUDA graph: %s", str(error))

    def _recorded(self) -> ctypes.c_void_p:
        if self._driver is None:
            self._driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        driver, graph, replay = self._driver, ctypes.c_void_p(), ctypes.c_void_p()
        _check("cuStreamBeginCapture", driver.cuStreamBeginCapture_v2(self._stream, _THREAD_LOCAL))
        try:
            try:
                self._network.enqueue()
            finally:  # a stream that is left recording takes no other work
                ended = driver.cuStreamEndCapture(self._stream, ctypes.byref(graph))
            _check("cuStreamEndCapture", ended)
            flags = ctypes.c_ulonglong(0)
            _check("cuGraphInstantiate", driver.cuGraphInstantiateWithFlags(ctypes.byref(replay), graph, flags))
        finally:
            if graph:
                driver.cuGraphDestroy(graph)
        return replay


class _NotCapturedError(Exception):
    """The driver refuses to record."""


def _check(call: str, code: int) -> None:
    if code != 0:  # CUDA_SUCCESS
        raise _NotCapturedError(f"{call} gives error {code}")
