"""Files here and elsewhere through one interface, pyarrow's: local paths, s3://, gs://, hdfs:// and what fsspec knows.

https://arrow.apache.org/docs/python/filesystems.html
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcnedge.runtime.errors import UserError, missing_package

from ..local_path import local_path
from ..sources.address import hide_password


@dataclass(frozen=True)
class StoredFile:
    """A file somewhere. uri: as `Storage.at` takes it; size: bytes; modified_ns: since 1970, None where not told."""

    uri: str
    size: int
    modified_ns: int | None


class Storage:
    """A folder of a file system that pyarrow or fsspec reaches. Names are relative to it, with "/" between parts.

    uri: where it is; a local path is absolute.

    Every method raises UserError, in one sentence, when the file system refuses.
    """

    def __init__(self, uri: str, system: Any, path: str) -> None:
        self.uri = uri
        self._system, self._path = system, path

    @classmethod
    def at(cls, uri: str) -> Storage:
        """What a path or URI names; nothing needs to be there."""
        fs = _pyarrow_fs()
        if "://" not in uri:
            path = str(local_path(uri).absolute())
            return cls(path, fs.LocalFileSystem(), path)
        try:
            system, path = fs.FileSystem.from_uri(uri)
        except (ValueError, NotImplementedError):
            system, path = _fsspec_system(uri)
        except OSError as error:
            raise UserError(f"{hide_password(uri)} cannot be reached ({_line(error)}); check the address.") from error
        return cls(uri, system, path)

    def files(self) -> list[StoredFile]:
        """The file itself, or the files directly in the folder, sorted by name; hidden ones are left out."""
        import pyarrow.fs

        with self._refusal("read"):
            info = self._system.get_file_info(self._path)
            if info.type == pyarrow.fs.FileType.NotFound:
                return []
            if info.type == pyarrow.fs.FileType.File:
                return [self._stored(self.uri, info)]
            found = self._system.get_file_info(pyarrow.fs.FileSelector(self._path))
        files = [each for each in found if each.is_file and not each.base_name.startswith(".")]
        base = self.uri.rstrip("/")
        return [self._stored(f"{base}/{each.base_name}", each) for each in sorted(files, key=lambda file: file.path)]

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder of that name is there."""
        import pyarrow.fs

        with self._refusal("read"):
            return self._system.get_file_info(self._of(name)).type != pyarrow.fs.FileType.NotFound

    def is_empty(self) -> bool:
        """Whether nothing is in the folder, or there is none. A file is not."""
        import pyarrow.fs

        with self._refusal("read"):
            info = self._system.get_file_info(self._path)
            if info.type != pyarrow.fs.FileType.Directory:
                return info.type == pyarrow.fs.FileType.NotFound
            return not self._system.get_file_info(pyarrow.fs.FileSelector(self._path))

    def read(self, name: str) -> bytes:
        """The whole file."""
        with self._refusal("read", name), self._system.open_input_stream(self._of(name)) as stream:
            return stream.read()

    def write(self, name: str, data: bytes) -> None:
        """Replace the file; its folder must be there. Who reads meanwhile may see half of it."""
        with self._refusal("written", name), self._system.open_output_stream(self._of(name)) as stream:
            stream.write(data)

    def write_atomically(self, name: str, data: bytes) -> None:
        """Under another name first: whoever sees the final name sees a whole file."""
        folder, _, last = name.rpartition("/")
        part = f"{folder}/.{last}.{uuid.uuid4().hex}.part".lstrip("/")
        with self._refusal("written", name):
            try:
                self.write(part, data)
                self._system.move(self._of(part), self._of(name))
            finally:
                with contextlib.suppress(OSError, UserError):
                    if self.exists(part):
                        self._system.delete_file(self._of(part))

    def make_folder(self, name: str = "") -> None:
        """Make it and those above it."""
        with self._refusal("made", name):
            self._system.create_dir(self._of(name), recursive=True)

    def delete(self, name: str) -> None:
        """Delete a file, or a folder with all that is in it; where there is none nothing happens."""
        import pyarrow.fs

        with self._refusal("deleted", name):
            kind = self._system.get_file_info(self._of(name)).type
            if kind == pyarrow.fs.FileType.Directory:
                self._system.delete_dir(self._of(name))
            elif kind != pyarrow.fs.FileType.NotFound:
                self._system.delete_file(self._of(name))

    @contextlib.contextmanager
    def local_copy(self) -> Iterator[Path]:
        """The file as a path on this machine: itself where it is local, else a copy for as long as the block runs."""
        import pyarrow.fs

        if isinstance(self._system, pyarrow.fs.LocalFileSystem):
            yield Path(self._path)
            return
        with tempfile.TemporaryDirectory(prefix="fcnedge-") as folder:
            path = Path(folder) / self._path.rsplit("/", 1)[-1]
            with self._refusal("read"), self._system.open_input_stream(self._path) as stream, path.open("wb") as file:
                shutil.copyfileobj(stream, file, 1 << 22)
            yield path

    def _of(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}" if name else self._path

    @staticmethod
    def _stored(uri: str, info: Any) -> StoredFile:
        return StoredFile(uri, info.size, info.mtime_ns)

    @contextlib.contextmanager
    def _refusal(self, what: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:  # pyarrow's and fsspec's are all OSErrors
            where = f"{hide_password(self.uri).rstrip('/')}/{name}" if name else hide_password(self.uri)
            raise UserError(f"{where} cannot be {what} ({_line(error)}).") from error


def _pyarrow_fs() -> Any:
    try:
        import pyarrow.fs
    except ImportError as error:
        raise missing_package("pyarrow", extra="ray") from error
    return pyarrow.fs


def _fsspec_system(uri: str) -> tuple[Any, str]:
    """What pyarrow has no own file system for: memory://, http://, abfs:// …, by the packages that are installed."""
    import pyarrow.fs

    scheme = uri.partition("://")[0]
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        reason = _line(error)
        raise UserError(f"{scheme}:// is no file system that is known here ({reason}); name a folder.") from error
    except OSError as error:
        raise UserError(f"{hide_password(uri)} cannot be reached ({_line(error)}); check the address.") from error
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(system)), path


def _line(error: BaseException) -> str:
    strerror = getattr(error, "strerror", None)
    return strerror or next(iter(str(error).splitlines()), "") or type(error).__name__
