"""Which files a batch is of: what the user's words name, each once, with a key that stays the same from run to run."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fcnedge.runtime.errors import UserError

from ..local_path import local_path
from ..sources.address import hide_password
from ..sources.picture_file import PICTURE_SUFFIXES
from .storage import Storage, StoredFile

FILM_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".gif"})
"""Endings by which films are found in a folder; a film of another ending is named itself, or by a pattern."""


@dataclass(frozen=True)
class Recording:
    """A picture or film to be masked. uri: a local path, absolute, or a URI; modified_ns: since 1970, or None."""

    uri: str
    size: int
    modified_ns: int | None

    @property
    def key(self) -> str:
        """What its masks and statistics are called: its name and 12 hexadecimal digits of the SHA-256 of its URI."""
        stem = re.sub(r"[^\w.-]+", "_", PurePosixPath(self.uri).stem).strip("._")[:60]
        digest = hashlib.sha256(self.uri.encode("utf-8", "surrogateescape")).hexdigest()[:12]
        return f"{stem}-{digest}" if stem else digest


@dataclass(frozen=True)
class Recordings:
    """found: each once, in the order named; passed_over: files in folders that are neither picture nor film."""

    found: tuple[Recording, ...]
    passed_over: int


def find_recordings(words: Sequence[str]) -> Recordings:
    """What the words name: files, folders, patterns (`shots/*.mp4`, `**` too), URIs, and `@FILE`, a list of such.

    Of a folder those files are taken that end as pictures and films do; a list has one word per line, and lines that
    begin with # are left out. Raises UserError for what does not exist, and where there is nothing to do.
    """
    found: dict[str, Recording] = {}
    passed_over = 0
    for word in _unlisted(words):
        files, others = _files(word)
        passed_over += others
        for file in files:
            found.setdefault(file.uri, Recording(file.uri, file.size, file.modified_ns))
    if not found:
        raise UserError(f"{', '.join(map(hide_password, words))}: no picture or film is there; name files or folders.")
    return Recordings(tuple(found.values()), passed_over)


def _unlisted(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if not word.startswith("@"):
            yield word
            continue
        path = local_path(word[1:])
        try:
            lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except OSError as error:
            raise UserError(f"the list {path} cannot be read ({error.strerror}); check the path.") from error
        yield from (line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))


def _files(word: str) -> tuple[list[StoredFile], int]:
    if re.match(r"(demo|rtsps?|csi|v4l2)://", word):
        raise UserError(f"{hide_password(word)} is no recording; --ray takes pictures and films.")
    if "://" in word:
        return _files_at(word)
    path = local_path(word).absolute()
    if path.exists() or not any(character in word for character in "*?["):
        return _files_at(str(path))
    matches = sorted(name for name in glob.glob(str(path), recursive=True) if Path(name).is_file())  # noqa: PTH207
    if not matches:
        raise UserError(f"no file matches {word}; check the pattern.")
    return [file for name in matches for file in Storage.at(name).files()], 0


def _files_at(uri: str) -> tuple[list[StoredFile], int]:
    files = Storage.at(uri).files()
    if [file.uri for file in files] == [uri]:
        return files, 0
    if not files and not Storage.at(uri).exists():
        raise UserError(f"{hide_password(uri)} does not exist; check the name.")
    wanted = [file for file in files if PurePosixPath(file.uri).suffix.lower() in PICTURE_SUFFIXES | FILM_SUFFIXES]
    return wanted, len(files) - len(wanted)
