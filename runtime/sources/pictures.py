"""Picture files as a source: one, or many in a given order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .frame import Frame, Source
from .picture_file import check_picture, read_picture


class PictureSource(Source):
    """Pictures, read one at a time. The first is looked at on opening, so that a wrong file is refused at once."""

    def __init__(self, uri: str, files: Sequence[Path], *, skipped: int = 0, folder: Path | None = None) -> None:
        super().__init__(uri, length=len(files), skipped=skipped, files=files, folder=folder)
        check_picture(self.files[0])

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.files):
            yield Frame(read_picture(path), path.stem, index, 0.0)
