"""A file that is never longer than what is true of it: films that a killed process leaves behind play to their end."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..errors import UserError


class GrowingFile:
    """Each `append` reaches the system before it returns, and is undone when it does not fit. Raises UserError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = 0
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise self._failure(error) from error

    def append(self, *parts: bytes) -> None:
        """Put the parts at the end: all of them, or none."""
        data = b"".join(parts)
        try:
            self._write(self.size, data)
        except BaseException as error:  # Ctrl-C too
            with contextlib.suppress(OSError):
                self._file.truncate(self.size)
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise
        self.size += len(data)

    def patch(self, offset: int, data: bytes) -> None:
        """Replace bytes that are there."""
        try:
            self._write(offset, data)
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """More than once does no harm."""
        try:
            self._file.close()
        except OSError as error:  # NFS tells of a full disk here
            raise self._failure(error) from error

    def _write(self, offset: int, data: bytes) -> None:
        self._file.seek(offset)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _failure(self, error: OSError) -> UserError:
        return UserError(f"{self._path} cannot be written: {error.strerror}")
