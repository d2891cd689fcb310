"""Where an engine lies, and how it gets there: engine and sidecar whole, or nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcnedge.runtime.bundle import sha256_of
from fcnedge.runtime.engine_sidecar import EngineSidecar, sidecar_path
from fcnedge.runtime.errors import UserError

from ..bundle_writer import check_takes_folders, disk_errors, existing_folder, staging_folder


@dataclass(frozen=True)
class EngineFileFacts:
    """Size in bytes and SHA-256 of an engine file."""

    bytes: int
    sha256: str


def check_engine_output(output: Path, *, force: bool) -> None:
    """Raise UserError, before the compiling, if `output` is taken or cannot be."""
    with disk_errors(output):
        if output.is_dir():
            raise UserError(f"{output} is a folder; -o names the engine file.")
        for path in (output, sidecar_path(output)):
            if path.exists() and not force:
                raise UserError(f"{path} exists already; add --force to replace it.")
    check_takes_folders(existing_folder(output.absolute().parent), output)


def write_engine(plan: Any, output: Path, describe: Any) -> EngineSidecar:
    """Write `plan` to `output` and what `describe(EngineFileFacts)` returns to the sidecar beside it.

    Both are written out of sight first and renamed last, the sidecar after the engine: it carries the engine's hash,
    so whatever happens between two renames is found out by it. Raises UserError for a full or read-only disk.
    """
    with disk_errors(output), staging_folder(output) as staging:
        staged = staging / output.name
        staged.write_bytes(memoryview(plan))
        sidecar = describe(EngineFileFacts(staged.stat().st_size, sha256_of(staged)))
        staged_sidecar = sidecar_path(staged)
        staged_sidecar.write_text(sidecar.to_json(), encoding="utf-8")
        os.replace(staged, output)  # noqa: PTH105 - a rename that takes the old file's place, on Windows too
        os.replace(staged_sidecar, sidecar_path(output))  # noqa: PTH105
    return sidecar


def write_timing_cache(data: bytes, path: Path) -> None:
    """Replace the timing cache at `path` by `data`, whole or not at all."""
    with disk_errors(path), staging_folder(path) as staging:
        staged = staging / path.name
        staged.write_bytes(data)
        os.replace(staged, path)  # noqa: PTH105
