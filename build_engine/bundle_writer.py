"""Write a bundle: assembled out of sight, verified, then moved into place by one rename, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fcnedge.runtime import Bundle, Manifest
from fcnedge.runtime.bundle import MANIFEST_NAME, sha256_of
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import FileSpec


def check_output(output: Path, *, force: bool) -> None:
    """Raise UserError, before hours of work, if `output` is taken or cannot be written."""
    with disk_errors(output):
        if output.exists() and not (output / MANIFEST_NAME).is_file():
            raise UserError(f"{output} exists and is not a bundle; choose another name for -o.")
        if output.exists() and not force:
            raise UserError(f"{output} exists already; add --force to replace it.")
        parent = _existing(output.resolve().parent)
    if not parent.is_dir():
        raise UserError(f"{parent} is a file, so no bundle can lie in it; choose another place for -o.")
    if not os.access(parent, os.W_OK):
        raise UserError(f"{parent} cannot be written to; choose another place for -o.")


@contextlib.contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """A hidden folder beside `output`, on its file system, that is gone when the block ends, however it ends.

    Where `output` is a link, beside what it points to. Turns a full disk into a UserError.
    """
    with disk_errors(output):
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
            free = shutil.disk_usage(_existing(output)).free
            raise UserError(
                f"the disk is full while writing {output}: {free / 1e6:.0f} MB are left; free some space or choose "
                "another place for -o. Nothing was written."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG):
            raise UserError(f"{output} cannot be written ({error.strerror}); choose another place for -o.") from error
        raise


def file_specs(folder: Path, precisions: dict[str, str | None]) -> dict[str, FileSpec]:
    """Size and hash of every named file in `folder`; precisions: the graph each belongs to, by file name."""
    return {
        name: FileSpec(sha256_of(folder / name), (folder / name).stat().st_size, precision)
        for name, precision in precisions.items()
    }


def write_manifest(folder: Path, manifest: Manifest) -> Bundle:
    """Add model.json and read the whole bundle back as a device will."""
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return Bundle.load(folder)


def publish(folder: Path, output: Path) -> None:
    """Rename `folder` to `output`; an older bundle there is moved aside first and deleted last."""
    with disk_errors(output):
        target, old = output.resolve(), None  # of a link, what it points to is replaced
        if target.exists():
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


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
