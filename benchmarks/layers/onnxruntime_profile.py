"""Layer times from ONNX Runtime's profile, a JSON file of trace events.

https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html – each inference is a Session event
`model_run`; each node that ran a Node event `NAME_kernel_time` inside it, in microseconds, with its operator, provider
and place in the optimised graph. Nodes outside of any `model_run` are constants folded once.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from fcnedge.runtime import Bundle
from fcnedge.runtime.backends.cpu_target import cpu_target
from fcnedge.runtime.errors import BackendError

from .layer_time import FEWEST_RUNS, PROFILED_RUNS, PROFILED_S, LayerKey

_KERNEL = "_kernel_time"


def profile_onnxruntime(
    bundle: Bundle, precision: str, threads: int | None, image: np.ndarray
) -> list[dict[LayerKey, float]]:
    """Milliseconds by layer of each of some inferences of (1, H, W, 3) uint8 BGR, in a session of their own.

    The session is as OnnxRuntimeBackend's, but for the profiler. Raises BackendError when no profile is written.
    """
    import onnxruntime as ort

    with tempfile.TemporaryDirectory(prefix="fcnedge-") as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        if threads is not None:
            options.intra_op_num_threads = threads
        session: Any = ort.InferenceSession(
            str(bundle.model(precision, cpu_target())), options, providers=["CPUExecutionProvider"]
        )
        started = perf_counter()
        for run in range(PROFILED_RUNS):
            if run >= FEWEST_RUNS and perf_counter() - started > PROFILED_S:
                break
            session.run(None, {"image": image})
        text = Path(session.end_profiling()).read_text(encoding="utf-8")
    runs = parse_profile(text)
    if not runs:
        raise BackendError(f"onnxruntime {ort.__version__} wrote a profile without a single inference.")
    return runs


def parse_profile(text: str) -> list[dict[LayerKey, float]]:
    """A profile's JSON → milliseconds by layer of each inference in it."""
    events = [event for event in json.loads(text) if isinstance(event, dict)]
    spans = sorted(
        (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("cat") == "Session" and event.get("name") == "model_run"
    )
    nodes = sorted(_nodes(events), key=lambda event: event["ts"])
    return [
        {_key(event): event["dur"] / 1000 for event in nodes if begin <= event["ts"] <= end} for begin, end in spans
    ]


def _nodes(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (event for event in events if event.get("cat") == "Node" and str(event.get("name")).endswith(_KERNEL))


def _key(event: Mapping[str, Any]) -> LayerKey:
    arguments = event["args"]
    name = event["name"].removesuffix(_KERNEL) or f"node {arguments.get('node_index')}"
    provider = str(arguments.get("provider", "")).removesuffix("ExecutionProvider")
    return LayerKey(name, str(arguments.get("op_name", "")), provider)
