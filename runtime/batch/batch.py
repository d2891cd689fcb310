"""A batch: recordings in, masks and statistics out, what is done already passed over, what failed named."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from fcnedge.runtime.errors import UserError

from ..backends import BACKENDS
from ..bundle import Bundle
from ..command import Progress
from ..sources.address import hide_password
from .cluster import LOCAL, cluster, has_gpu, mask_all
from .masker import MASKS, Job, model_name, packed
from .recordings import Recording, find_recordings
from .statistics import FOLDER, MERGED, FileStatistics, merge, parse_statistics, read_statistics
from .storage import Storage

_GPU_BACKENDS = frozenset(name for name in BACKENDS if name.startswith("tensorrt") or name.endswith("cuda"))


@dataclass(frozen=True)
class BatchOptions:
    """What a batch is to do. sources: as `find_recordings` takes them; out: a folder, or a URI that `Storage` takes.

    ray: "local", or the address of a cluster; threads: CPU threads of each worker, None for one.
    """

    sources: tuple[str, ...]
    out: str
    model: Path
    ray: str = LOCAL
    backend: str = "auto"
    precision: str = "auto"
    filter_mode: str = "linear"
    threads: int | None = None


@dataclass(frozen=True)
class BatchResult:
    """How a batch went. done: recordings masked by this run; kept: masked by an earlier one; frames, classes: of both.

    failed: sentences by URI, of those that could not be masked; passed_over: files in folders that are neither picture
    nor film; classes: mean share of the frames' pixels by name, 0..1.
    """

    model: str
    out: str
    done: int
    kept: int
    failed: Mapping[str, str]
    passed_over: int
    frames: int
    seconds: float
    classes: Mapping[str, float]

    def lines(self) -> Iterator[str]:
        """For a person."""
        yield f"masked   {self.done} recordings, {self.kept} were masked before, {len(self.failed)} failed"
        if self.passed_over:
            yield f"skipped  {self.passed_over} files that are neither picture nor film"
        yield f"frames   {self.frames}, of all recordings together"
        yield f"classes  {', '.join(f'{name} {share:.1%}' for name, share in self.classes.items()) or 'none'}"
        yield f"took     {self.seconds:.0f} s with {self.model}"
        yield f"written  {MASKS}/, {FOLDER}/ and {MERGED} in {hide_password(self.out)}"


def run_batch(options: BatchOptions, progress: Callable[..., None] | None = None) -> BatchResult:
    """Mask all recordings that are not masked yet, on Ray. progress: as `Progress`.

    Killed at any moment it can be started again with the same words, and goes on with what is missing. Raises UserError
    in one sentence for what would stop every recording; of a single one the sentence is in its statistics.
    """
    began = perf_counter()
    bundle = Bundle.load(options.model)
    recordings = find_recordings(options.sources)
    out = Storage.at(options.out)
    model = model_name(bundle, options.precision, options.filter_mode)
    _prepare(out)
    entries = dict(_kept(out, recordings.found, model))
    kept = len(entries)
    missing = [each for each in recordings.found if each.key not in entries]
    if missing:
        with cluster(options.ray) as ray:
            gpu = options.backend in _GPU_BACKENDS or (options.backend == "auto" and has_gpu(ray))
            job = Job(
                bundle=str(bundle.path.absolute()) if options.ray == LOCAL else packed(bundle),
                run=uuid.uuid4().hex,
                model=model,
                out=out.uri,
                backend=options.backend,
                precision=options.precision,
                filter_mode=options.filter_mode,
                threads=None if gpu else options.threads or 1,
            )
            rows = [{"uri": each.uri, "size": each.size, "modified_ns": each.modified_ns} for each in missing]
            answers = mask_all(ray, job, rows, cores=options.threads or 1, gpu=gpu)
            entries |= _received(answers, missing, progress or Progress())
    merge(out, entries)
    return _result(options, model, entries, kept, recordings.passed_over, perf_counter() - began)


def _prepare(out: Storage) -> None:
    if not out.is_empty() and not out.exists(FOLDER):
        raise UserError(
            f"{hide_password(out.uri)} holds files that no batch wrote; name a folder that is new, empty or a batch's."
        )
    out.make_folder(FOLDER)


def _kept(out: Storage, recordings: Iterable[Recording], model: str) -> Iterator[tuple[str, FileStatistics]]:
    there = {file.uri.rsplit("/", 1)[-1] for file in Storage.at(f"{out.uri.rstrip('/')}/{FOLDER}").files()}
    for recording in recordings:
        if f"{recording.key}.json" in there:
            entry = read_statistics(out, recording.key)
            if entry is not None and entry.is_of(recording, model):
                yield recording.key, entry


def _received(
    answers: Iterable[Mapping[str, str]], missing: list[Recording], progress: Callable[..., None]
) -> dict[str, FileStatistics]:
    entries: dict[str, FileStatistics] = {}
    for answer in answers:
        if answer["bug"]:
            raise RuntimeError(f"a worker failed:\n{answer['bug']}")
        if answer["refusal"]:
            raise UserError(answer["refusal"])
        entry = parse_statistics(answer["entry"])
        if entry is not None:
            entries[answer["key"]] = entry
            progress(f"{entry.file}: {entry.error or f'{entry.frames} frames'}", len(entries), len(missing))
    return entries


def _result(
    options: BatchOptions,
    model: str,
    entries: Mapping[str, FileStatistics],
    kept: int,
    passed_over: int,
    seconds: float,
) -> BatchResult:
    shares: defaultdict[str, float] = defaultdict(float)
    frames = sum(entry.frames for entry in entries.values())
    for entry in entries.values():
        for name, share in entry.classes.items():
            shares[name] += share * entry.frames / frames
    failed = {entry.file: entry.error for entry in entries.values() if entry.error is not None}
    return BatchResult(
        model=model,
        out=options.out,
        done=len(entries) - kept - len(failed),
        kept=kept,
        failed=failed,
        passed_over=passed_over,
        frames=frames,
        seconds=seconds,
        classes=dict(sorted(shares.items(), key=lambda item: -item[1])),
    )
