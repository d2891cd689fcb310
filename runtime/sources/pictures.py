"""Picture files as a source: one, or many in a given order."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from fcnedge.runtime.errors import SourceError

from .frame import Frame, Source
from .picture_file import check_picture, read_picture

_log = logging.getLogger(__name__)


class PictureSource(Source):
    """Pictures, read one at a time.

    A single one is looked at on opening, so that a wrong file is refused at once. Of several, one that cannot be read
    is logged, counted in `skipped` and passed over; where none can be read, SourceError is raised.
    """

    def __init__(self, uri: str, files: Sequence[Path], *, skipped: int = 0, folder: Path | None = None) -> None:
        super().__init__(uri, length=len(files), skipped=skipped, files=files, folder=folder)
        self._no_pictures = skipped
        if len(files) == 1:
            check_picture(self.files[0])

    def __iter__(self) -> Iterator[Frame]:
        self.skipped, self.warning = self._no_pictures, None
        index, errors = 0, []
        for path in self.files:
            try:
                image = read_picture(path)
            except SourceError as error:
                errors.append(error)
                if len(errors) == len(self.files):
                    raise _all_failed(self.uri, errors) from error
                _log.warning("%s", error)
                self.skipped += 1
                self.warning = _summary(errors)
                continue
            yield Frame(image, path.stem, index, 0.0)
            index += 1


def _all_failed(uri: str, errors: Sequence[SourceError]) -> SourceError:
    if len(errors) == 1:
        return errors[0]
    return SourceError(f"none of the {len(errors)} pictures of {uri} can be read, the first being that {errors[0]}")


def _summary(errors: Sequence[SourceError]) -> str:
    if len(errors) == 1:
        return str(errors[0])
    return f"{len(errors)} pictures cannot be read, the first being that {errors[0]}"
