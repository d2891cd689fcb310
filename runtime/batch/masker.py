"""The work on one recording, in a process of its own: masks first, then the entry that says they are all there."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import io
import shutil
import tempfile
import traceback
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from fcnedge.runtime.errors import SourceError, UserError

from ..bundle import MANIFEST_NAME, Bundle
from ..opencv import quiet_opencv
from ..overlay import class_shares
from ..palette import VOID, encode_label_png
from ..segmenter import Segmenter
from ..sources import Source, open_source
from .recordings import Recording
from .statistics import FOLDER, FileStatistics, read_statistics
from .storage import Storage

MASKS = "masks"
TRIES = 3
"""With how many workers a recording is tried that ends them, by its size or by what is wrong with it."""


@dataclass(frozen=True)
class Job:
    """What every worker must know.

    bundle: a folder that every machine has, or a bundle as `packed` gave it; run: another for each run of the program.
    """

    bundle: str | bytes
    run: str
    model: str
    out: str
    backend: str
    precision: str
    filter_mode: str
    threads: int | None


def model_name(bundle: Bundle, precision: str, filter_mode: str) -> str:
    """What masks depend on besides the recording: name and hash of the bundle, precision and filter mode asked for."""
    digest = hashlib.sha256((bundle.path / MANIFEST_NAME).read_bytes()).hexdigest()[:12]
    return f"{bundle.manifest.name} {digest} {precision} {filter_mode}"


def packed(bundle: Bundle) -> bytes:
    """The bundle's files as one, for machines that do not have its folder."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name in (MANIFEST_NAME, *bundle.manifest.files):
            archive.write(bundle.path / name, name)
    return data.getvalue()


def _unpacked(data: bytes) -> str:
    """A folder with the bundle that `packed` gave, for as long as the process lives: its files are read when needed."""
    folder = tempfile.mkdtemp(prefix="fcnedge-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(folder)
    return folder


class Masker:
    """Masks one recording after another with one model, which it opens with the first. Ray makes an actor of it.

    Called with {"uri", "size", "modified_ns"} it returns {"key", "entry", "refusal", "bug"}: `entry` is the
    recording's `FileStatistics` as JSON, also of one that cannot be read; `refusal` the sentence of a UserError that
    would meet every other recording too; `bug` a traceback. Nothing is raised: Ray would try it again.
    """

    def __init__(self, job: Job) -> None:
        quiet_opencv()
        self._job = job
        self._out = Storage.at(job.out)
        self._segmenter: Segmenter | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Mask one recording."""
        modified_ns = row["modified_ns"]
        recording = Recording(row["uri"], int(row["size"]), None if modified_ns is None else int(modified_ns))
        answer = {"key": recording.key, "entry": "", "refusal": "", "bug": ""}
        try:
            answer["entry"] = self._mask(recording).line()
        except UserError as error:
            answer["refusal"] = str(error)
        except Exception:
            answer["bug"] = traceback.format_exc()
        return answer

    def _mask(self, recording: Recording) -> FileStatistics:
        found = read_statistics(self._out, recording.key)
        if found is not None and found.is_of(recording, self._job.model):
            return found  # by a worker that ended before it could say so
        segmenter = self._open()
        entry = FileStatistics(recording.uri, recording.size, recording.modified_ns, None, 0, model=self._job.model)
        for name in (f"{FOLDER}/{recording.key}.json", f"{MASKS}/{recording.key}", f"{MASKS}/{recording.key}.png"):
            self._out.delete(name)
        with self._counted(recording.key) as tries:
            if tries > TRIES:
                error = f"{TRIES} workers were ended by the system over it, for want of memory or by damage in it"
                entry = replace(entry, error=error)
            else:
                entry = _masked(entry, recording, _Work(self._out, recording.key, segmenter))
            entry.write(self._out, recording.key)
        return entry

    @contextlib.contextmanager
    def _counted(self, key: str) -> Iterator[int]:
        """How often the recording has been begun in this run; forgotten when the block is left, but not when killed."""
        name, tries = f"{FOLDER}/.{key}.tries", 1
        if self._out.exists(name):
            run, _, count = self._out.read(name).decode("ascii", "replace").partition(" ")
            tries += int(count) if run == self._job.run and count.isdecimal() else 0
        self._out.write(name, f"{self._job.run} {tries}".encode("ascii"))
        yield tries
        self._out.delete(name)

    def _open(self) -> Segmenter:
        if self._segmenter is None:
            job, path = self._job, self._job.bundle
            if isinstance(path, bytes):
                path = _unpacked(path)
            self._segmenter = Segmenter(path, job.backend, job.precision, job.threads, filter_mode=job.filter_mode)
        return self._segmenter


class _Work:
    """The masks of one recording. masks: name of the PNG or folder, once there is a frame."""

    def __init__(self, out: Storage, key: str, segmenter: Segmenter) -> None:
        self._out, self._key, self._segmenter = out, key, segmenter
        self._shares: defaultdict[int, float] = defaultdict(float)
        self.masks: str | None = None
        self.frames = 0

    def run(self, source: Source) -> None:
        """Mask every frame. Raises SourceError where one cannot be read; those before it stay."""
        for frame in source:
            mask = self._segmenter(frame.image)
            if self.masks is None:
                self.masks = f"{MASKS}/{self._key}" if source.is_video else f"{MASKS}/{self._key}.png"
                self._out.make_folder(self.masks if source.is_video else MASKS)
            name = f"{self.masks}/{frame.name}.png" if source.is_video else self.masks
            self._out.write(name, encode_label_png(mask, self._segmenter.palette))
            self.frames += 1
            for class_id, share in class_shares(mask).items():
                self._shares[class_id] += share

    def classes(self) -> dict[str, float]:
        """Mean share of the frames' pixels by class name, the largest first."""
        names = self._segmenter.classes
        order = sorted(self._shares, key=lambda class_id: -self._shares[class_id])
        return {"void" if each == VOID else names[each]: self._shares[each] / self.frames for each in order}


def _masked(entry: FileStatistics, recording: Recording, work: _Work) -> FileStatistics:
    began = perf_counter()
    try:
        with _opened(recording) as source:
            work.run(source)
            entry = replace(entry, warning=source.warning)
    except SourceError as error:
        entry = replace(entry, error=str(error))
    return replace(entry, masks=work.masks, frames=work.frames, classes=work.classes(), seconds=perf_counter() - began)


@contextlib.contextmanager
def _opened(recording: Recording) -> Iterator[Source]:
    """The recording, to be read. Raises SourceError."""
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(Storage.at(recording.uri).local_copy())
            source = stack.enter_context(open_source(path))
        except UserError as error:
            raise SourceError(str(error)) from error
        yield source
