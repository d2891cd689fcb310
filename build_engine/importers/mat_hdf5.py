"""Version 7.3 of MATLAB's .mat files, which is HDF5: axes the other way round, structs as groups, cells as references.

Source: what MATLAB's `save -v7.3` writes. Every value carries its class in the attribute `MATLAB_class`; a struct is a
group with one member per field; a struct array is a group whose members hold one reference per struct and carry no
class of their own; a cell array is a dataset of references; an empty value holds its shape and is `MATLAB_empty`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.runtime.errors import UserError, missing_package

from .mat_file import damaged, not_data

_MAX_DEPTH = 32
_NUMBERS = ("double", "single", "logical", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def read_hdf5(path: Path, names: Collection[str] | None) -> dict[str, Any]:
    """As `read_mat`, which decides that the file is of version 7.3. Raises UserError."""
    try:
        import h5py
    except ImportError as error:
        raise missing_package("h5py, which reads .mat files of version 7.3,", extra="import") from error
    try:
        with h5py.File(path, "r") as file:
            wanted = [name for name in file if not name.startswith("#") and (names is None or name in names)]
            return {name: _value(file, _member(file, name, path), path, 0) for name in wanted}
    except UserError:
        raise
    except Exception as error:  # h5py hands through whatever the HDF5 library makes of damaged bytes
        raise damaged(path, error) from error


def _value(file: Any, node: Any, path: Path, depth: int) -> Any:
    import h5py

    if depth > _MAX_DEPTH:
        raise UserError(f"{path} nests its values more than {_MAX_DEPTH} deep, which no network needs; it is damaged.")
    if isinstance(node, h5py.Group):
        return _struct(file, node, path, depth + 1)
    kind = _kind(node)
    if node.attrs.get("MATLAB_empty"):
        return [] if kind == "cell" else "" if kind == "char" else np.zeros([int(side) for side in node[()]])
    if h5py.check_ref_dtype(node.dtype) is h5py.Reference:
        return [_value(file, file[reference], path, depth + 1) for reference in node[()].reshape(-1)]
    if kind == "char":
        return "".join(map(chr, node[()].reshape(-1).tolist()))
    if kind not in _NUMBERS:
        raise not_data(path, f"a value of class {kind or 'unknown'}")
    return np.asarray(node[()]).T


def _struct(file: Any, group: Any, path: Path, depth: int) -> Any:
    """A dict, or a list of dicts for a struct array."""
    import h5py

    members = {name: _member(group, name, path) for name in group}
    of_an_array = [
        isinstance(member, h5py.Dataset)
        and h5py.check_ref_dtype(member.dtype) is h5py.Reference
        and "MATLAB_class" not in member.attrs
        for member in members.values()
    ]
    if not (of_an_array and all(of_an_array)):
        return {name: _value(file, member, path, depth) for name, member in members.items()}
    columns = {name: _value(file, member, path, depth) for name, member in members.items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _member(group: Any, name: str, path: Path) -> Any:
    """A member that lies in the file itself: HDF5 can link to any other file of the machine."""
    import h5py

    if isinstance(group.get(name, getlink=True), h5py.HardLink):
        member = group[name]
        if isinstance(member, h5py.Group) or not (member.external or member.is_virtual):
            return member
    raise UserError(f"{path} takes {name} from another place, which MATLAB does not do; save it as one file.")


def _kind(node: Any) -> str:
    kind = node.attrs.get("MATLAB_class", b"")
    return kind.decode("ascii", "replace") if isinstance(kind, bytes) else str(kind)
