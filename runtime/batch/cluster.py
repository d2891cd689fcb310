"""Ray: the cluster that is joined or started, and the workers that its Ray Data runs. Scheduling is Ray's own.

https://docs.ray.io/en/latest/data/api/doc/ray.data.Dataset.map.html
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fcnedge.runtime.errors import UserError, missing_package

from ..command import captured_stderr
from ..sources.address import why_no_connection
from .masker import Job, Masker

LOCAL = "local"
_CONNECT_S = 10.0
_STORE_BYTES = 128 << 20
"""Of the store that a local Ray shares between its processes: only names and numbers go through it here."""


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Any]:
    """The module ray, connected to `address`, or for "local" to a cluster of this machine that ends with the block.

    Raises UserError when Ray is missing or nobody answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of its C++, which writes on the terminal
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing_package("ray", extra="ray") from error
    own: Mapping[str, Any] = {}
    _check_reachable(address)
    if address == LOCAL:
        own = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    before = signal.getsignal(signal.SIGTERM)
    try:
        with captured_stderr():  # where its C++ says that it heeds RAY_BACKEND_LOG_LEVEL
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise _nobody(address, reason) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's own ends the process with a stack trace
    # Ray prints that a worker was ended and that it tries again, some of it only on shutdown.
    with Path(os.devnull).open("w", encoding="utf-8") as nobody, contextlib.redirect_stdout(nobody):
        try:
            yield ray
        finally:
            ray.shutdown()


def mask_all(ray: Any, job: Job, rows: Sequence[Mapping[str, Any]], *, cores: int, gpu: bool) -> Iterator[dict]:
    """What `Masker` answers for each row, as they are done.

    One worker per GPU where `gpu`, else per `cores` cores of the cluster. Of a worker that is ended Ray Data starts
    another, and gives it the row again; `Masker` ends that where it is the row's fault.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    resources = ray.cluster_resources()
    found = int(resources.get("GPU", 0)) if gpu else int(resources.get("CPU", 1)) // cores
    if found < 1:
        what = "GPU" if gpu else f"{cores} cores for --threads {cores}"
        raise UserError(f"the Ray cluster has no {what}; it has {_named(resources)}.")
    data = ray.data.from_items(list(rows), override_num_blocks=len(rows)).map(
        Masker,
        fn_constructor_args=(job,),
        concurrency=min(found, len(rows)),
        num_cpus=None if gpu else cores,
        num_gpus=1 if gpu else None,
    )
    yield from data.iter_rows()


def has_gpu(ray: Any) -> bool:
    """Whether any machine of the cluster has one."""
    return ray.cluster_resources().get("GPU", 0) >= 1


def _check_reachable(address: str) -> None:
    """Raise UserError where nobody listens at HOST:PORT: Ray itself would wait for minutes."""
    host, found, port = address.rpartition("://")[2].rpartition(":")
    if not (found and port.isdecimal()):
        return
    try:
        reason = why_no_connection(host.strip("[]"), int(port), _CONNECT_S)
    except OverflowError as error:
        reason = str(error)
    if reason is not None:
        raise _nobody(address, reason)


def _nobody(address: str, reason: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at {address} ({reason}); start one with `ray start --head`, set RAY_AUTH_MODE=token "
        "where it wants its token, or use --ray local."
    )


def _named(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{resources.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU"))
