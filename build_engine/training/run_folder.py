"""The folder of a training run: whose it is, how far it got, and whether there is room for its files."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnedge.calibration.voc import VocSample
from fcnedge.runtime.bundle import sha256_of
from fcnedge.runtime.errors import UserError

from .. import bundle_writer
from ..model_source import ModelSource

if TYPE_CHECKING:
    from ..cli import TrainOptions

IDENTITY_FILE, RESUME_FOLDER, SNAPSHOT_FILE, CURVE_FILE = "run.json", "resume", "model.weights.h5", "curve.csv"

_STATE, _EPOCH = "latest.weights.h5", "training_metadata.json"  # as keras.callbacks.BackupAndRestore calls them
_FORMAT = 1
# told by the hashes, or without influence on what is trained
_NO_IDENTITY = {"data", "output", "weights", "classes", "split", "val_split", "val_images", "dry_run", "json"}


@dataclass(frozen=True)
class RunIdentity:
    """What makes two runs the same: their options, by name, and SHA-256 hashes of what they read, by what it is."""

    options: dict[str, Any]
    hashes: dict[str, str]

    @classmethod
    def of(
        cls,
        source: ModelSource,
        options: TrainOptions,
        training: Sequence[VocSample],
        validation: Sequence[VocSample],
    ) -> RunIdentity:
        """Identity of the run that `options` ask for. Pictures count by name and size in bytes, wherever they lie."""
        height, width = options.size
        asked = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
        asked |= {"model": source.arch, "size": f"{width}x{height}", "fcnedge": importlib.metadata.version("fcnedge")}
        hashes = {
            "class names": _hash(source.classes),
            "start weights": sha256_of(source.weights) if source.weights is not None else "",
            "training pictures": _samples_hash(training),
            "validation pictures": _samples_hash(validation),
        }
        return cls({name: value for name, value in asked.items() if name not in _NO_IDENTITY}, hashes)

    def check(self, output: Path) -> None:
        """Raise UserError when the folder `output` holds the state of another run, naming what differs."""
        if not (output / RESUME_FOLDER / _STATE).exists():
            return
        held = _read(output / IDENTITY_FILE)
        if held is None:
            raise UserError(
                f"{output} holds a run that cannot be told from this one, for its {IDENTITY_FILE} is missing or "
                "damaged; choose another folder with -o."
            )
        differ = [
            f"{_words(name)} {held.options.get(name)} (here {value})"
            for name, value in self.options.items()
            if held.options.get(name) != value
        ]
        differ += [f"other {name}" for name, digest in self.hashes.items() if held.hashes.get(name) != digest]
        if differ:
            raise UserError(
                f"{output} holds another run, with {', '.join(differ)}; choose another folder with -o, or give what it "
                "was given to go on with it."
            )

    def write(self, output: Path) -> None:
        """Leave `output`/run.json, whole or not at all. Raises OSError."""
        path = output / IDENTITY_FILE
        temporary = path.with_name(path.name + ".part")
        try:
            text = json.dumps({"format": _FORMAT, "options": self.options, "hashes": self.hashes}, indent=2)
            temporary.write_text(text + "\n", encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def finished_epochs(output: Path) -> int:
    """How many epochs the run in `output` has finished; 0 when there is none."""
    try:
        return int(json.loads((output / RESUME_FOLDER / _EPOCH).read_text(encoding="utf-8"))["epoch"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{output / RESUME_FOLDER} is damaged ({error}), so its run cannot go on; choose another folder with -o."
        ) from error


def check_writable(output: Path) -> None:
    """Raise UserError, before hours of work, when no folder `output` can be made or none of its files written."""
    with bundle_writer.disk_errors(output):
        if output.exists() and not output.is_dir():
            raise UserError(f"{output} is a file; -o names a folder.")
        folder = output.absolute()
        while not folder.exists():
            folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{folder} is a file, so no folder can lie in it; choose another place for -o.")
    bundle_writer.check_takes_folders(folder, output)


def check_room(output: Path, state_bytes: int, snapshot_bytes: int) -> None:
    """Raise UserError when the disk has no room for a state, the state before it, and a snapshot of the weights.

    Asked before they are written: HDF5 that meets a full disk can take the whole process down (seen with h5py 3).
    What older ones occupy counts as room, for they are overwritten.
    """
    files = [output / SNAPSHOT_FILE, *(output / RESUME_FOLDER).glob("*")]
    occupied = sum(path.stat().st_size for path in files if path.is_file())
    needed = 2 * state_bytes + snapshot_bytes - occupied
    free = shutil.disk_usage(output).free
    if free < needed:
        raise _disk_full(output, f"{_megabytes(free)} MB are left, {_megabytes(needed)} MB are needed")


@contextlib.contextmanager
def disk_errors(output: Path) -> Iterator[None]:
    """Turn what the disk refuses while a run writes to `output` into one sentence."""
    try:
        with bundle_writer.disk_errors(output):
            yield
    except UserError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _disk_full(output, os.strerror(cause.errno)) from cause
        raise


def _disk_full(output: Path, reason: str) -> UserError:
    return UserError(
        f"the disk is full while training into {output}: {reason}; free some space and start the same command again, "
        "which goes on after the last finished epoch."
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f}"


def _read(path: Path) -> RunIdentity | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        identity = RunIdentity(dict(data["options"]), dict(data["hashes"]))
        return identity if data["format"] == _FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _words(name: str) -> str:
    return name if name in ("model", "fcnedge") else f"--{name.replace('_', '-')}"


def _samples_hash(samples: Sequence[VocSample]) -> str:
    return _hash(
        f"{sample.name} {sample.image_path.stat().st_size} {sample.mask_path.stat().st_size}" for sample in samples
    )


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
