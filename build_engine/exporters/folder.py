"""An exported folder: written out of sight, listed in its export.json, and moved into place by one rename."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from fcnedge.runtime.bundle import sha256_of
from fcnedge.runtime.command import write_json
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import MAX_JSON_BYTES

from ..bundle_writer import check_takes_folders, disk_errors, existing_folder, staging_folder

LISTING_NAME = "export.json"
README_NAME = "README.txt"


def safe_name(name: str) -> str:
    """`name` as a folder's: letters, digits, dots, dashes and underscores, no dot in front."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "model"


def check_export(output: Path, *, force: bool) -> None:
    """Raise UserError, before any work, if `output` is taken or cannot be written.

    force: an export that is there may be replaced, as long as it holds nothing but what its export.json lists.
    """
    with disk_errors(output):
        if output.exists() or output.is_symlink():
            _check_replaceable(output)
            if not force:
                raise UserError(f"{output} exists already; add --force to replace it.")
        parent = existing_folder(output.resolve().parent)
    if not parent.is_dir():
        raise UserError(f"{parent} is a file, so no folder can lie in it; choose another place for -o.")
    check_takes_folders(parent, output)


@contextlib.contextmanager
def export_folder(output: Path, kind: str) -> Iterator[Path]:
    """A folder to write into that becomes `output` when the block ends well; export.json is added.

    An export that is there is moved aside first and deleted last.
    """
    with staging_folder(output) as folder:
        yield folder
        files = {path.relative_to(folder).as_posix(): sha256_of(path) for path in _files_in(folder)}
        write_json({"format": 1, "kind": kind, "files": files}, folder / LISTING_NAME)
        _publish(folder, output)


def _publish(folder: Path, output: Path) -> None:
    target, old = output.resolve(), None
    if target.exists():
        _check_replaceable(output)
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


def _check_replaceable(output: Path) -> None:
    """Raise UserError unless `output` is a folder of export.json and the files that it lists."""
    try:
        with (output / LISTING_NAME).open("rb") as file:
            listed = json.loads(file.read(MAX_JSON_BYTES))["files"]
        if not isinstance(listed, dict):
            raise TypeError("files is no object")
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"{output} exists and is not an export; choose another name for -o.") from None
    present = {path.relative_to(output).as_posix() for path in _files_in(output)}
    extra = sorted(present - {LISTING_NAME, *listed})
    if extra:
        raise UserError(
            f"{output} holds {extra[0]}, which is not part of the export; move it elsewhere, or choose another name "
            "for -o."
        )


def exported_files(output: Path) -> tuple[str, ...]:
    """Names of the files in the exported folder `output`, with slashes, sorted; export.json left out."""
    names = (path.relative_to(output).as_posix() for path in _files_in(output))
    return tuple(name for name in names if name != LISTING_NAME)


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
