"""The engines that lie about: the one that fits this machine, what the nearest differs in, and a missing one compiled.

An engine fits one version of one library and one kind of GPU, and the graph that it was compiled from. Its sidecar says
which; nothing else is believed, least of all its name. Engines lie in the bundle's folder engines/ and, of a bundle
that cannot be written to, in the user's cache folder under the bundle's hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .bundle import Bundle
from .child_command import python_module, run_child
from .engine_sidecar import ENGINES_FOLDER, EngineSidecar, engine_name, read_sidecar, sidecar_path
from .errors import BackendError, BundleError, UserError
from .user_cache import make_private, user_cache

_TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
_GRAPH_TARGET = "tensorrt"
_BUILDER, _BUILDER_NAME = "fcnedge.build_engine.cli", "fcn-build engine"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """What an engine must fit.

    library: "tensorrt" or "tensorrt_rtx"; version: of it, in full, such as 10.3.0; gpu: its name as the driver gives
    it; compute_capability: of that GPU, such as "8.7"; index: of it here, as CUDA counts, which engines do not know.
    """

    library: str
    version: str
    gpu: str
    compute_capability: str
    index: int = 0

    def __str__(self) -> str:
        return f"{_TITLES[self.library]} {self.version} on {self.gpu} (compute capability {self.compute_capability})"


@dataclass(frozen=True)
class Engine:
    """A verified engine. path: where it was found; plan: its bytes, the very ones that were verified."""

    path: Path
    plan: bytes = field(repr=False)


def name_for(precision: str, machine: Machine) -> str:
    """What the engine for `machine` is called when it is compiled here."""
    return engine_name(precision, machine.library, machine.version, (machine.compute_capability,))


def find_engine(bundle: Bundle, precision: str, machine: Machine) -> Engine:
    """The bundle's engine for `machine`, read and verified: library, version, compute capability, graph, size and hash.

    precision: "fp32", "fp16", "int8", or "auto" for the bundle's most exact graph. Of several that fit, one that was
    compiled on a GPU of the same name; one of another name is taken with a warning.

    Raises BackendError when there is none: one sentence with what the nearest differs in, and the command that mends
    it. Raises BundleError when the bundle has no graph in that precision.
    """
    precision = _resolved(bundle, precision)
    misses: list[_Miss] = []
    for path, sidecar in _candidates(bundle, precision, machine, misses):
        differences = _differences(sidecar, bundle, machine)
        plan = b"" if differences else _plan(path, sidecar)
        if isinstance(plan, str):
            differences = [plan]
        elif not differences:
            if sidecar.gpu not in (None, machine.gpu):
                _log.warning("%s was compiled on %s; this is %s, where it may be slower", path, sidecar.gpu, machine)
            return Engine(path, plan)
        misses.append(_Miss(len(differences), f"{path} {', and it '.join(differences)}"))
    nearest = min(misses, key=lambda miss: miss.distance, default=None)
    words = nearest.words if nearest else f"{bundle.path} has no {precision} engine for {machine}"
    raise BackendError(f"{words}; compile one for this machine: {build_command(bundle, precision, machine)}")


def obtain_engine(bundle: Bundle, precision: str, machine: Machine, *, build: bool = True) -> Engine:
    """The bundle's engine for `machine` as `find_engine` gives it; with `build`, compiled first when there is none.

    That is done by `fcn-build engine` in a child process, whose memory goes back to the system, and takes from seconds
    to many minutes: a warning in the log says so, and what the child writes is passed on. Several processes that ask at
    once compile one engine, the others wait for it and say so. Ctrl-C ends it, and leaves nothing behind.

    Raises as `find_engine` does, and BackendError with the child's own sentence when it could not.
    """
    precision = _resolved(bundle, precision)
    try:
        return find_engine(bundle, precision, machine)
    except BackendError as error:
        if not build:
            raise
        _log.info("%s", error)
    folder = _folder_to_write(bundle)
    with _one_at_a_time(folder) as lock:
        with contextlib.suppress(BackendError):  # whoever had the folder before us may have compiled it
            return find_engine(bundle, precision, machine)
        _compile(bundle, precision, machine, folder / name_for(precision, machine), lock)
    return find_engine(bundle, precision, machine)


def build_command(bundle: Bundle, precision: str, machine: Machine, output: Path | None = None) -> str:
    """What a user types to have the engine for `machine` compiled: into `output`, else where fcn-build puts it.

    It replaces an engine that is there already.
    """
    words = ["fcn-build", *_build_words(bundle.path, precision, machine)]
    if output is None:
        written = bundle.path / ENGINES_FOLDER / name_for(precision, machine)
    else:
        written = output
        words += ["--output", str(output)]
    if written.exists() or sidecar_path(written).exists():
        words.append("--force")
    selected = f"CUDA_VISIBLE_DEVICES={_visible(machine.index)} " if machine.index else ""
    return selected + shlex.join(words)


# --- which engine


@dataclass(frozen=True)
class _Miss:
    """An engine that does not fit. distance: how far it is from fitting; words: it, and why not."""

    distance: int
    words: str


_WITHOUT_SIDECAR = 99
"""Farther from fitting than any engine of which something is known."""


def _resolved(bundle: Bundle, precision: str) -> str:
    graph = bundle.model(precision, _GRAPH_TARGET)
    return str(bundle.graph_files(graph)[graph.relative_to(bundle.path).as_posix()].precision)


def _candidates(
    bundle: Bundle, precision: str, machine: Machine, misses: list[_Miss]
) -> Iterator[tuple[Path, EngineSidecar]]:
    """Engines of that precision and library; those of a GPU with the same name first. Unreadable ones: to `misses`."""
    found = []
    for engine in _engine_files(bundle):
        try:
            sidecar = read_sidecar(engine)
        except BundleError as error:
            misses.append(_Miss(_WITHOUT_SIDECAR, str(error).partition(";")[0]))
            continue
        if (sidecar.precision, sidecar.library, sidecar.dla) == (precision, machine.library, False):
            found.append((engine, sidecar))
    yield from sorted(found, key=lambda pair: pair[1].gpu != machine.gpu)


def _engine_files(bundle: Bundle) -> list[Path]:
    """Every file in the engine folders that may be an engine, whatever -o called it."""
    files = []
    for folder in _folders(bundle):
        with contextlib.suppress(OSError):  # there is none, or it is not ours to read: no engine either way
            files += [path for path in sorted(folder.iterdir()) if path.suffix != ".json" and path.name[0] != "."]
    return [path for path in files if path.is_file()]


def _differences(sidecar: EngineSidecar, bundle: Bundle, machine: Machine) -> list[str]:
    """What keeps the engine from fitting, each to follow "it"; the most telling first."""
    differences = []
    if machine.compute_capability not in sidecar.compute_capabilities:
        of = f" ({sidecar.gpu})" if sidecar.gpu else ""
        differences.append(
            f"was compiled for compute capability {', '.join(sidecar.compute_capabilities)}{of} where this GPU has "
            f"{machine.compute_capability} ({machine.gpu})"
        )
    if sidecar.version != machine.version:
        title = _TITLES[machine.library]
        differences.append(f"was compiled by {title} {sidecar.version} where this machine has {machine.version}")
    graph = _graph_of(sidecar, bundle)
    if graph is None:
        differences.append(f"was compiled from a graph, by {sidecar.route}, that the bundle does not hold")
    elif sidecar.graph != {name: spec.sha256 for name, spec in bundle.graph_files(graph).items()}:
        differences.append(f"was compiled from another graph than the bundle's {graph.name}")
    return differences


def _graph_of(sidecar: EngineSidecar, bundle: Bundle) -> Path | None:
    """The graph that an engine like this is compiled from today, if there is one: docs/engines.md, "Precision"."""
    with contextlib.suppress(BundleError):
        if sidecar.route == "calibration cache":
            return bundle.model("fp32")
        return bundle.model(sidecar.precision, _GRAPH_TARGET if sidecar.route == "strongly typed" else None)
    return None


def _plan(engine: Path, sidecar: EngineSidecar) -> bytes | str:
    """The engine's bytes, or what happened to the file since it was compiled, to follow "it".

    Read once: whoever replaces the file meanwhile changes nothing. TensorRT may crash on an engine that is cut off.
    """
    try:
        size = engine.stat().st_size
        if size < sidecar.bytes:
            return f"is cut off: it has {size} of the {sidecar.bytes} bytes that its sidecar says"
        with engine.open("rb") as file:
            plan = file.read(sidecar.bytes + 1)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if len(plan) > sidecar.bytes:
        return f"was changed after it was compiled: it has more than the {sidecar.bytes} bytes that its sidecar says"
    found = hashlib.sha256(plan).hexdigest()
    if found != sidecar.sha256:
        words = f"its SHA-256 starts {found[:12]}, its sidecar says {sidecar.sha256[:12]}"
        return f"was changed after it was compiled: {words}"
    return plan


# --- compiling


def _folders(bundle: Bundle) -> list[Path]:
    """Where the bundle's engines may lie: in itself, and in the cache of a user who can have one."""
    folders = [bundle.path / ENGINES_FOLDER]
    with contextlib.suppress(UserError):
        key = hashlib.sha256(bundle.manifest.to_json().encode()).hexdigest()
        folders.append(user_cache(ENGINES_FOLDER) / key[:32])
    return folders


def _folder_to_write(bundle: Bundle) -> Path:
    """The first of `_folders` that can be written to, made if need be. Raises BackendError when none can."""
    folders = _folders(bundle)
    for folder in folders:
        with contextlib.suppress(OSError):
            if folder.parent == bundle.path:
                folder.mkdir(parents=True, exist_ok=True)
            else:
                make_private(folder)
            with tempfile.TemporaryFile(dir=folder):  # asking for permission says nothing of a disk that is read-only
                return folder
    raise BackendError(
        f"no engine can be compiled, for nothing can be written to {' or '.join(map(str, folders))}; make one of them "
        "writable, or set XDG_CACHE_HOME."
    )


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[tuple[int, ...]]:
    """Hold the folder against other processes and threads that compile into it. Gives the lock's file descriptor.

    The lock goes with its last holder, a child that was given it too. Where there is none to be had, on Windows and on
    some network disks, two may compile the same engine, and the last wins.
    """
    descriptor = None
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("another process is compiling an engine into %s; waiting for it", folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield () if descriptor is None else (descriptor,)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _compile(bundle: Bundle, precision: str, machine: Machine, output: Path, lock: tuple[int, ...]) -> None:
    """Have `fcn-build engine` compile into `output`. Raises BackendError with its sentence.

    It holds the lock too: whoever starts again after we were killed waits for it, and takes the engine that it makes.
    """
    _log.warning(
        "compiling the %s engine of %s for %s: this takes seconds to minutes, once; it is kept as %s",
        precision,
        bundle.manifest.name,
        machine,
        output,
    )
    words = [*_build_words(bundle.path.absolute(), precision, machine), "--output", str(output.absolute()), "--force"]
    try:
        # TensorRT compiles for the first GPU that it sees.
        command, environment = python_module(_BUILDER, *words), {"CUDA_VISIBLE_DEVICES": _visible(machine.index)}
        run_child(command, _BUILDER_NAME, environment, lock)
    except UserError as error:
        raise BackendError(str(error)) from error


def _build_words(bundle: Path, precision: str, machine: Machine) -> list[str]:
    words = ["engine", str(bundle), "--target", machine.library, "--precision", precision]
    if machine.library == "tensorrt_rtx":  # by default it compiles for others too, and for some not at all
        words += ["--sm", machine.compute_capability]
    return words


def _visible(index: int) -> str:
    """The value of CUDA_VISIBLE_DEVICES with which a GPU that has this index here is the only one.

    https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#cuda-environment-variables
    """
    ours = os.environ.get("CUDA_VISIBLE_DEVICES")
    if ours is None:
        return str(index)
    visible = [word.strip() for word in ours.split(",")]
    return visible[index] if index < len(visible) else ours
