"""One run of a comparison: every row opened and warmed up, then timed in turns, then scored one after the other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from fcnedge.calibration.miou import ConfusionMatrix, usual_subset
from fcnedge.calibration.voc import VocSample
from fcnedge.runtime import Bundle
from fcnedge.runtime.command import Progress

from ..machine import machine_facts
from ..sensors.conditions import Conditions, Reading, Sensors, conditions
from .bench import Bench, Settled
from .child import Child, ChildError
from .comparison import (
    FORMAT,
    TOOL,
    ComparedModel,
    ComparedRow,
    CompareReport,
    check_bars,
    choose_reference,
)
from .entry import Entry
from .rounds import FEWEST_ROUNDS, SLOW_MS, Row, paired_ratio, run_rounds

_CORES_TOLERANCE = 0.1
_NOISE_SHARE = 0.1


@dataclass(frozen=True)
class Plan:
    """What is measured with. frames: (H, W, 3) uint8 BGR, all of one size, to time; samples: pictures to score.

    reference: a row's name, None to choose one by rule. calibration: words for the report.
    """

    threads: int
    rounds: int
    frames: tuple[np.ndarray, ...]
    samples: tuple[VocSample, ...]
    split: str
    reference: str | None = None
    calibration: str = ""


def measure(bundle: Bundle, entries: Sequence[Entry], plan: Plan, progress: Progress) -> CompareReport:
    """Time and score every row that can be opened; one that cannot, or fails later, says why and the others go on.

    An interrupt once a frame was timed gives a partial report; before that it is raised.
    """
    return _Measurement(bundle, entries, plan, progress).report()


class _Measurement:
    def __init__(self, bundle: Bundle, entries: Sequence[Entry], plan: Plan, progress: Progress):
        self._bundle, self._plan, self._progress = bundle, plan, progress
        self._subset = usual_subset(bundle.manifest.classes)
        self._rows = [
            Row(entry, None, np.full((plan.rounds, len(plan.frames)), np.nan), reason=entry.reason) for entry in entries
        ]
        self._counts: dict[str, np.ndarray] = {}
        self._found: Conditions | None = None
        self._began = perf_counter()

    def report(self) -> CompareReport:
        """Measure, and say what was measured."""
        stage, interrupted = "opening", False
        try:
            self._open()
            stage = "timing"
            self._time()
            stage = "scoring"
            self._score()
        except KeyboardInterrupt:
            if all(np.isnan(row.times_ms).all() for row in self._rows):
                raise
            interrupted = True
        finally:
            for row in self._rows:
                if row.child is not None:
                    row.child.close()
        return self._result(f"interrupted while {stage}" if interrupted else None)

    def _open(self) -> None:
        for index, row in enumerate(self._rows):
            self._progress(f"opening {row.entry.name}", index, len(self._rows))
            if row.entry.open is None:
                continue
            try:
                row.child = Child(Bench, row.entry, self._plan.threads, self._plan.frames)
                row.versions, row.detail = row.child.call("facts")
                settled: Settled = row.child.call("settle")
                row.settled = settled
            except ChildError as error:
                row.fail(str(error))

    def _time(self) -> None:
        rows = [row for row in self._rows if row.child is not None]
        if not rows:
            return
        sensors = Sensors()
        readings = [self._reading(sensors)]
        try:
            run_rounds(rows, lambda done, rounds: self._progress("timing in turns", done, rounds))
        finally:
            readings.append(self._reading(sensors))
            self._found = conditions(readings, tells_throttling=sensors.tells_throttling)

    def _reading(self, sensors: Sensors) -> Reading:
        """What the sensors say, with the CPU time of all rows' processes as our own."""
        reading = sensors.read(0)
        for row in self._rows:
            with contextlib.suppress(ChildError):
                if row.child is not None:
                    reading = replace(reading, own_s=reading.own_s + row.child.call("cpu_s"))
        ended = os.times()  # of rows that failed or were interrupted since
        return replace(reading, own_s=reading.own_s + ended.children_user + ended.children_system)

    def _score(self) -> None:
        for row in self._rows:
            if row.child is None or np.isnan(row.times_ms).all():
                continue
            name, count = row.entry.name, len(self._plan.samples)
            if row.slow:
                row.reason = f"mIoU not measured: {count} pictures of {np.nanmedian(row.times_ms) / 1000:.1f} s each"
                continue
            try:
                self._counts[name] = row.child.call(
                    "score",
                    self._plan.samples,
                    len(self._bundle.manifest.classes),
                    progress=lambda done, name=name, count=count: self._progress(f"scoring {name}", done, count),
                )
            except ChildError as error:
                row.fail(f"mIoU not measured: {error}")

    def _result(self, partial: str | None) -> CompareReport:
        plan, manifest = self._plan, self._bundle.manifest
        rows = [self._compared(row) for row in self._rows]
        chosen, rule = choose_reference(rows)
        reference = plan.reference or chosen
        times = {row.entry.name: row.times_ms for row in self._rows}
        if reference is not None:
            rows = [row.against(paired_ratio(times[row.name], times[reference])) for row in rows]
        return CompareReport(
            tool=TOOL,
            format=FORMAT,
            partial=partial,
            interrupted=partial is not None,
            machine=machine_facts(),
            model=ComparedModel(
                name=manifest.name,
                arch=manifest.arch,
                path=str(self._bundle.path),
                input=f"{manifest.input.width}x{manifest.input.height} {manifest.input.fit}",
                sha256={name: spec.sha256 for name, spec in manifest.files.items() if spec.precision is not None},
            ),
            threads=plan.threads,
            frames=len(plan.frames),
            frame_size=f"{plan.frames[0].shape[1]}x{plan.frames[0].shape[0]}",
            rounds=plan.rounds,
            split=plan.split,
            pictures=len(plan.samples),
            subset=self._subset,
            calibration=plan.calibration,
            reference=reference,
            reference_rule="named by --reference" if plan.reference else rule,
            seconds=perf_counter() - self._began,
            rows=tuple(rows),
            bars=check_bars(rows, reference),
            conditions=self._found,
            notes=tuple(self._notes(rows)),
        )

    def _compared(self, row: Row) -> ComparedRow:
        known = row.times_ms[~np.isnan(row.times_ms)]
        matrix = ConfusionMatrix(len(self._bundle.manifest.classes))
        scored = row.entry.name in self._counts
        if scored:
            matrix.counts = self._counts[row.entry.name]
        ids = [self._bundle.manifest.classes.index(name) for name in self._subset]
        return ComparedRow(
            name=row.entry.name,
            precision=row.entry.precision,
            p50_ms=float(np.median(known)) if known.size else None,
            ratio=None,
            ratio_low=None,
            ratio_high=None,
            miou7=matrix.mean_iou(ids) if scored else None,
            miou=matrix.mean_iou() if scored else None,
            frames=int(known.size),
            cores=row.cpu_s / row.wall_s if row.wall_s else None,
            warm_up_frames=row.settled.warm_up.frames if row.settled else None,
            settled=row.settled.warm_up.settled if row.settled else None,
            detail=row.detail,
            versions=row.versions,
            reason=row.reason,
        )

    def _notes(self, rows: Sequence[ComparedRow]) -> Iterator[str]:
        if self._plan.rounds < FEWEST_ROUNDS:
            yield f"{self._plan.rounds} rounds: with fewer than {FEWEST_ROUNDS} intervals are too narrow"
        greedy = [row.name for row in rows if (row.cores or 0) > self._plan.threads + _CORES_TOLERANCE]
        if greedy:
            yield f"more than {self._plan.threads} cores' time was taken by {', '.join(greedy)}"
        restless = [row.name for row in rows if row.settled is False]
        if restless:
            yield f"no end of warm-up was found for {', '.join(restless)}"
        slow = [row.name for row in rows if (row.p50_ms or 0) > SLOW_MS]
        if slow:
            yield f"slower than {SLOW_MS / 1000:g} s a frame, so timed on few and not scored: {', '.join(slow)}"
        if self._found is not None and (self._found.other_load or 0) > _NOISE_SHARE:
            yield f"other programs took {self._found.other_load:.0%} of all cores: do not publish these numbers"
