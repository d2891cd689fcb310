"""Where the results of each source go."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..local_path import local_path
from ..look import Look, parse_visuals
from ..segmenter import Segmenter
from ..sinks import FolderSink, PageSink, PictureSink, Sink, VideoSink, open_sink
from ..sources import Source
from ..sources.address import hide_password
from .labels import source_labels
from .options import RunOptions


@dataclass(frozen=True)
class Outputs:
    """Sinks by the place of the source that each is for; None for one that takes the results of all.

    uri: as the user gave it, without a password.
    """

    uri: str
    sinks: Mapping[int | None, Sink]
    stack: contextlib.ExitStack

    @property
    def page(self) -> PageSink | None:
        """The live page, where that is the output."""
        return next((sink for sink in self.sinks.values() if isinstance(sink, PageSink)), None)

    @property
    def kept(self) -> bool:
        """Whether anything of what was written stays."""
        return any(isinstance(sink, FolderSink | PictureSink | VideoSink) for sink in self.sinks.values())

    def close(self) -> None:
        """Finish them all; more than once does no harm. Raises UserError when one turns out incomplete."""
        self.stack.close()


@contextlib.contextmanager
def open_outputs(
    options: RunOptions, sources: Mapping[int, Source], segmenter: Segmenter, look: Look
) -> Iterator[Outputs]:
    """Open the sinks for these sources, by their places. Raises UserError as `open_sink` does, and for one too few."""
    uri = _with_lower_scheme(options.sink or "null://")
    with contextlib.ExitStack() as stack:
        sinks = {place: stack.enter_context(sink) for place, sink in _sinks(uri, options, sources, segmenter, look)}
        yield Outputs(hide_password(uri), sinks, stack)


def _with_lower_scheme(uri: str) -> str:
    """HTTP://x → http://x (RFC 3986, 3.1: schemes are the same in any case); anything else as it is."""
    return re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*(?=://)", lambda scheme: scheme[0].lower(), uri)


def _sinks(
    uri: str, options: RunOptions, sources: Mapping[int, Source], segmenter: Segmenter, look: Look
) -> Iterator[tuple[int | None, Sink]]:
    visuals = None if options.visualize is None else parse_visuals(options.visualize)
    if uri.startswith("http://"):
        if visuals is not None:
            raise UserError("--visualize is for files and windows; on the live page whoever looks at it chooses there.")
        yield None, PageSink(uri, segmenter, look, options.token)
        return
    if options.token is not None:
        raise UserError("--token is for the live page; name an address such as http://127.0.0.1:8080 as the output.")
    names = _names(uri, options.sources, sources)
    backend = segmenter.backend
    model = f"{segmenter.bundle.manifest.name} {backend.name} {backend.precision}"
    for place, source in sources.items():
        title = f"{source.uri} - {model}"
        yield place, open_sink(names[place], source=source, palette=look.palette, visualize=visuals, title=title)


def _names(uri: str, words: tuple[str, ...], sources: Mapping[int, Source]) -> dict[int, str]:
    """The output of each source: `uri` itself, or a folder of its own in the one that `uri` names."""
    if len(words) == 1 or uri == "null://" or uri.startswith("display://"):
        return dict.fromkeys(sources, uri)
    folder = _named_folder(uri)
    if folder is None:
        raise UserError(
            f"{hide_password(uri)} takes one source, and {len(words)} were given; name a folder (end it with /), "
            "http://127.0.0.1:8080, display:// or null://"
        )
    labels = source_labels(words)
    read = [source.folder for source in sources.values() if source.folder is not None]
    for written in (folder, *(folder / label for label in labels)):
        if any(_is_same(each, written) for each in read):
            raise UserError(
                f"{written} is one of the sources; write into a folder of its own, such as {folder / 'out'}"
            )
    return {place: f"{folder / labels[place]}/" for place in sources}


def _named_folder(uri: str) -> Path | None:
    """The folder that `uri` names, as `open_sink` has it; None where it is something else."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if scheme and scheme[1].lower() != "file":
        return None
    name = uri[scheme.end() :] if scheme else uri
    path = local_path(name)
    is_folder = os.path.isdir(path)  # noqa: PTH112 - before Python 3.14 Path.is_dir raises where this says no
    return path if name and (is_folder or name.endswith(("/", os.sep)) or not path.suffix) else None


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False
