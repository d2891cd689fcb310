"""Read a MATLAB .mat file, version 5 to 7.3, into plain Python: dicts, lists, text and arrays.

A struct is a dict, a struct array or a cell array a list (in MATLAB's order), a character row a str, and numbers are an
array of MATLAB's own shape. Function handles and objects of MATLAB classes are no data and are refused; nothing in the
file is executed or unpickled.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.runtime.errors import UserError

_HEADER_BYTES = 128
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_USER_BLOCK_BYTES = 512
"""MATLAB writes its own header here, before the HDF5 file of version 7.3 begins."""


def read_mat(path: Path, names: Collection[str] | None = None) -> dict[str, Any]:
    """The variables `names` that the file at `path` has (None: all), as plain Python.

    Of a file up to version 7 only the variables asked for are unpacked. Raises UserError for what is no .mat file,
    for a damaged one, and for a value that is not data.
    """
    version = _version(path)
    if version == "7.3":
        from .mat_hdf5 import read_hdf5

        return read_hdf5(path, names)
    import scipy.io

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SciPy warns of variables that share a name; the last one counts
            found = scipy.io.loadmat(path, variable_names=None if names is None else list(names), appendmat=False)
    except Exception as error:  # SciPy checks little: a damaged file ends in almost any exception
        raise damaged(path, error) from error
    return {name: _plain(value, path) for name, value in found.items() if not name.startswith("__")}


def damaged(path: Path, error: Exception) -> UserError:
    """The one sentence for a file that begins well and cannot be read to its end."""
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200] or type(error).__name__
    return UserError(f"{path} is a damaged .mat file ({reason}); copy or download it again.")


def not_data(path: Path, kind: str) -> UserError:
    """The one sentence for a value that only MATLAB can understand."""
    return UserError(
        f"{path} holds {kind}, which only MATLAB can read; save the network as a struct: net = net.saveobj(); "
        "save('net.mat', '-struct', 'net')."
    )


def _version(path: Path) -> str:
    """Either "5" or "7.3"; raises UserError for anything else."""
    try:
        with path.open("rb") as file:
            head = file.read(_USER_BLOCK_BYTES + len(_HDF5_SIGNATURE))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    if _HDF5_SIGNATURE in (head[: len(_HDF5_SIGNATURE)], head[_USER_BLOCK_BYTES:]):
        return "7.3"
    if head.startswith(b"MATLAB") and head[_HEADER_BYTES - 2 : _HEADER_BYTES] in (b"IM", b"MI"):
        return "5"
    raise UserError(f"{path} is not a .mat file: it does not begin as MATLAB's files do; check what it is.")


def _plain(value: Any, path: Path) -> Any:
    """SciPy's arrays of records and objects as dicts, lists and text."""
    from scipy.io.matlab import MatlabFunction, MatlabOpaque

    if isinstance(value, (MatlabFunction, MatlabOpaque)):
        raise not_data(path, "a function handle or an object of a MATLAB class")
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.names is not None:
        structs = [
            {name: _plain(record[name], path) for name in value.dtype.names} for record in value.flatten(order="F")
        ]
        return structs[0] if len(structs) == 1 else structs
    if value.dtype == object:
        return [_plain(item, path) for item in value.flatten(order="F")]
    if value.dtype.kind == "U":
        return str(value.reshape(-1)[0]) if value.size == 1 else "" if value.size == 0 else value.tolist()
    return value
