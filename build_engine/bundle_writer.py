"""Write a bundle: assembled out of sight, verified, then moved into place by one rename, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from fcnedge.runtime import Bundle, Manifest
from fcnedge.runtime.bundle import MANIFEST_NAME, sha256_of
from fcnedge.runtime.engine_sidecar import ENGINES_FOLDER
from fcnedge.runtime.errors import BundleError, UserError
from fcnedge.runtime.manifest import MAX_JSON_BYTES, FileSpec


def check_output(output: Path, *, force: bool) -> None:
    """Raise UserError, before hours of work, if `output` is taken or cannot be written.

    force: a bundle that is there may be replaced, with all engines in it (they fit its graph and no other). What is no
    bundle, and a bundle that holds any other file than those it lists, is refused even so.
    """
    with disk_errors(output):
        if output.exists():
            _check_replaceable(output, output)
            if not force:
                raise UserError(f"{output} exists already; add --force to replace it.")
        parent = existing_folder(output.resolve().parent)
    if not parent.is_dir():
        raise UserError(f"{parent} is a file, so no bundle can lie in it; choose another place for -o.")
    check_takes_folders(parent, output)


def check_takes_folders(parent: Path, output: Path) -> None:
    """Raise UserError unless a folder can be made in the folder `parent`; output: as asked for.

    By making one and taking it away again: root may write to /proc, say its permissions, and cannot.
    """
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{parent} cannot be written to; choose another place for -o.")
    with _every_refusal(output):
        Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=parent)).rmdir()


@contextlib.contextmanager
def _every_refusal(output: Path) -> Iterator[None]:
    """As disk_errors, for a block that does nothing but make folders: whatever goes wrong, the place is to blame."""
    try:
        with disk_errors(output):
            yield
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}); choose another place for -o.") from error


@contextlib.contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """A hidden folder beside `output`, on its file system, that is gone when the block ends, however it ends.

    Where `output` is a link, beside what it points to. Turns a full disk into a UserError.
    """
    with _every_refusal(output):
        target = output.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with disk_errors(output):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def disk_errors(output: Path) -> Iterator[None]:
    """Turn a full disk, an exceeded quota or a refused write into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = shutil.disk_usage(existing_folder(output)).free
            raise UserError(
                f"the disk is full while writing {output}: {free / 1e6:.0f} MB are left; free some space or choose "
                "another place for -o. Nothing was written."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG):
            raise UserError(f"{output} cannot be written ({error.strerror}); choose another place for -o.") from error
        raise


def file_specs(folder: Path, names: Iterable[str]) -> dict[str, FileSpec]:
    """Size and hash of every named file in `folder`, and what graph it belongs to by its name."""
    return {
        name: FileSpec(sha256_of(folder / name), (folder / name).stat().st_size, *graph_words(name)) for name in names
    }


def graph_words(name: str) -> tuple[str | None, str | None]:
    """Precision and target of a graph, or of its weights: `model.int8.vnni.onnx.data` → ("int8", "vnni").

    None for the target of a graph that serves every backend, (None, None) for other files.
    """
    if not name.startswith("model.") or ".onnx" not in name:
        return None, None
    precision, _, target = name.removeprefix("model.").partition(".onnx")[0].partition(".")
    return precision, target or None


def write_manifest(folder: Path, manifest: Manifest) -> Bundle:
    """Add model.json and read the whole bundle back as a device will."""
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return Bundle.load(folder)


def publish(folder: Path, output: Path) -> None:
    """Rename `folder` to `output`; an older bundle there is moved aside first and deleted last, with its engines.

    Raises UserError, as check_output does, when something else than a bundle is there.
    """
    with disk_errors(output):
        target, old = output.resolve(), None  # of a link, what it points to is replaced
        if target.exists():
            _check_replaceable(target, output)
            old = target.with_name(f".{target.name}.old.{os.getpid()}")
            target.rename(old)
        try:
            folder.chmod(0o755)
            folder.rename(target)
        except BaseException:
            if old is not None:
                old.rename(target)
            raise
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(folder: Path, output: Path) -> None:
    """Raise UserError unless `folder` can be made again: a bundle of listed files and engines. output: as asked for."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise UserError(f"{output} exists and is not a bundle; choose another name for -o.")
    try:
        with path.open("rb") as file:
            listed = Manifest.parse(file.read(MAX_JSON_BYTES + 1)).files
    except BundleError:  # TensorFlow.js, for one, calls a file of its own model.json
        raise UserError(
            f"{output} exists and its {MANIFEST_NAME} is not one that this fcnedge reads; choose another name for -o, "
            "or delete the folder yourself."
        ) from None
    extra = next((name for name in _names_in(folder) if name != MANIFEST_NAME and name not in listed), None)
    if extra is not None:
        raise UserError(
            f"{output} holds {extra}, which is not part of the bundle; move it elsewhere, or choose another name for "
            "-o."
        )


def _names_in(folder: Path) -> Iterator[str]:
    """Everything below `folder` but folders and what lies in engines/, sorted: names relative to it, with slashes."""

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=refuse):
        if Path(place) == folder and ENGINES_FOLDER in folders:
            folders.remove(ENGINES_FOLDER)  # os.walk goes into what is left, in its order
        folders.sort()
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        yield from sorted((Path(place) / name).relative_to(folder).as_posix() for name in [*files, *links])


def existing_folder(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
