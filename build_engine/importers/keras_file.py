"""The layers' description out of a .keras or .h5 file, and every check that goes before its weights are read.

A .keras file is a zip of config.json, metadata.json and model.weights.h5; an .h5 file of a whole model has the same
description as its attribute model_config. Sources: Keras's guide "Save, serialize, and export models", HDF5's manual
on external links, external storage and virtual datasets.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from fcnedge.runtime.errors import UserError

MAX_DESCRIPTION_BYTES = 16 << 20
MAX_UNPACKED_SHARE = 10
"""What a file unpacks to may be this many times its own size, or `FREE_BYTES` if that is more."""
FREE_BYTES = 64 << 20

_DAMAGE = (
    OSError, EOFError, zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, KeyError, NotImplementedError,
    ValueError, TypeError, MemoryError,
)  # fmt: skip
"""What zipfile and h5py raise for damaged bytes."""
_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"


@dataclass(frozen=True)
class KerasFile:
    """config: {"class_name", "config"} of the model; keras_version: of the Keras that saved it, "" if untold."""

    path: Path
    config: dict[str, Any]
    keras_version: str


def read_keras_file(path: Path) -> KerasFile:
    """Read the description of the model in `path`, and check the sizes of all else. Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path} is a folder without saved_model.pb, not a model file; check the path.")
    try:
        return _read_archive(path) if path.suffix.lower() == ".keras" else _read_hdf5(path)
    except _DAMAGE as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}); save the model again.") from error


def _read_archive(path: Path) -> KerasFile:
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is no .keras file: it is no zip archive; save the model with model.save('net.keras').")
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        missing = [name for name in (_CONFIG, _METADATA, _WEIGHTS) if name not in members]
        if missing:
            raise UserError(f"{path} is no .keras file: it has no {missing[0]}; save the model with model.save().")
        _check_unpacked(path, sum(member.file_size for member in members.values()))
        config, metadata = (_json_member(path, archive, members[name]) for name in (_CONFIG, _METADATA))
        with _hdf5(path, cast("BinaryIO", archive.open(_WEIGHTS))) as weights:
            _check_datasets(path, weights)
    return KerasFile(path, _model_config(path, config), str(metadata.get("keras_version", "")))


def _json_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> dict[str, Any]:
    if member.file_size > MAX_DESCRIPTION_BYTES:
        raise UserError(
            f"{path}: {member.filename} unpacks to {member.file_size >> 20} MiB, a description has at most "
            f"{MAX_DESCRIPTION_BYTES >> 20}; do not trust this file."
        )
    return _json(path, archive.read(member))


def _read_hdf5(path: Path) -> KerasFile:
    with path.open("rb") as stream, _hdf5(path, stream) as file:
        if "model_config" not in file.attrs:
            raise UserError(
                f"{path} holds weights without their layers; name their architecture and pass the file as --weights "
                "NET.weights.h5, or save the whole model with model.save('net.keras')."
            )
        _check_datasets(path, file)
        text = file.attrs["model_config"]
        version = file.attrs.get("keras_version", "")
    version = version.decode() if isinstance(version, bytes) else str(version)
    return KerasFile(path, _model_config(path, _json(path, text)), version)


def first_line(error: Exception) -> str:
    """What an exception of a library says first, else its kind; at most 300 characters."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


@contextmanager
def _hdf5(path: Path, stream: BinaryIO) -> Iterator[Any]:
    import h5py

    try:
        file = h5py.File(stream, "r")
    except OSError as error:
        raise UserError(f"{path} holds no HDF5 weights ({error}); save the model again.") from error
    with file:
        yield file


def _check_datasets(path: Path, file: Any) -> None:
    """Refuse data that lies in other files, and data that unpack to far more than there is."""
    import h5py

    unpacked, groups = 0, [file]
    seen: set[Any] = set()
    while groups:
        group = groups.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise UserError(f"{path}: {group.name}/{name} is a link to another file; do not trust this file.")
            item = group[name]
            if item.id in seen:  # a link to a group above it
                continue
            seen.add(item.id)
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise UserError(f"{path}: {item.name} lies in another file; do not trust this file.")
                unpacked += item.size * item.dtype.itemsize if item.size else 0
    _check_unpacked(path, unpacked)


def _check_unpacked(path: Path, unpacked: int) -> None:
    packed = path.stat().st_size
    if unpacked > max(FREE_BYTES, MAX_UNPACKED_SHARE * packed):
        raise UserError(
            f"{path} has {packed:,} bytes and would unpack to {unpacked:,}; at most {MAX_UNPACKED_SHARE} times its "
            f"size, or {FREE_BYTES >> 20} MiB, are read, so do not trust this file."
        )


def _json(path: Path, text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its description is no JSON ({error}); save the model again.") from error
    return value if isinstance(value, dict) else {}


def _model_config(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(config.get("class_name"), str) or not isinstance(config.get("config"), dict):
        raise UserError(f"{path} describes no Keras model; save the whole model with model.save('net.keras').")
    return config
