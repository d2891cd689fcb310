"""What `fcn-bench compare` measured: one object, whose fields are the keys of its JSON; docs/compare.md lists them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fcnedge.runtime.command import table

from ..machine import MachineFacts
from ..sensors.conditions import Conditions
from ..timing.statistics import Ratio
from .line_up import BY_HAND, DEEPLAB, OPENVINO_RAW

TOOL, FORMAT = "fcn-bench compare", 1
ALLOWED_DROP = 0.01
RULE = "the fastest of ours whose mean IoU is within 1.0 points of the best fp32 row of ours"
RULE_WITHOUT_MIOU = "the fastest fp32 row of ours, or of ours where there is none, for no mean IoU is known"


@dataclass(frozen=True)
class ComparedModel:
    """The bundle. sha256: of each graph file; input: `384x384 stretch`."""

    name: str
    arch: str
    path: str
    input: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class ComparedRow:
    """One way to the mask; what was not measured is None, and `reason` says why.

    precision: of our own rows, None for a peer. p50_ms: median of all its frames, from frame to mask. ratio: median
    over the frames of its time over the reference's, with a bootstrap interval of 95%. miou7: mean IoU over the
    report's `subset`, a share of 1; miou: over all classes that occur. frames: timed ones. cores: CPU time over wall
    time while it was timed. settled: whether its warm-up ended.
    """

    name: str
    precision: str | None
    p50_ms: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    miou7: float | None
    miou: float | None
    frames: int
    cores: float | None
    warm_up_frames: int | None
    settled: bool | None
    detail: str
    versions: dict[str, str]
    reason: str | None

    def against(self, ratio: Ratio | None) -> ComparedRow:
        """The same row with its ratio."""
        if ratio is None:
            return self
        return replace(self, ratio=ratio.ratio, ratio_low=ratio.low, ratio_high=ratio.high)


@dataclass(frozen=True)
class Bar:
    """Something the project means to reach. met: None where it was not measured; found: the numbers."""

    bar: str
    met: bool | None
    found: str


@dataclass(frozen=True)
class CompareReport:
    """Everything measured. partial: why the run ended before its time, None where it did not.

    frame_size: `500x375`; pictures: for mIoU; calibration: pictures for LiteRT's INT8. reference: a row's name, with
    the rule it was chosen by.
    """

    tool: str
    format: int
    partial: str | None
    interrupted: bool
    machine: MachineFacts
    model: ComparedModel
    threads: int
    frames: int
    frame_size: str
    rounds: int
    split: str
    pictures: int
    subset: tuple[str, ...]
    calibration: str
    reference: str | None
    reference_rule: str
    seconds: float
    rows: tuple[ComparedRow, ...]
    bars: tuple[Bar, ...]
    conditions: Conditions | None
    notes: tuple[str, ...]

    def text(self) -> str:
        """The report as text tables."""
        return "\n\n".join(part for part in self._parts() if part)

    def cells(self) -> list[tuple[str, ...]]:
        """One line of words per measured row, as `header` names them."""
        return [
            (
                row.name + (" (reference)" if row.name == self.reference else ""),
                f"{row.p50_ms:.1f}",
                _shown(row.ratio, "{:.2f}"),
                f"{row.ratio_low:.2f} to {row.ratio_high:.2f}" if row.ratio_low and row.ratio_high else "–",
                _shown(row.miou7 and 100 * row.miou7, "{:.2f}"),
                _shown(row.cores, "{:.2f}"),
            )
            for row in self.rows
            if row.p50_ms is not None
        ]

    @property
    def header(self) -> tuple[str, ...]:
        """Of the columns that `cells` gives."""
        return ("row", "p50 ms", "ratio", "95% interval", f"mIoU-{len(self.subset)} %", "cores used")

    def lines(self) -> Iterator[str]:
        """One sentence or phrase each on how it was measured."""
        yield (
            f"{self.model.name} at {self.model.input}, {self.threads} threads; end to end from a frame of "
            f"{self.frame_size} (H, W, 3) uint8 BGR to a mask of its size"
        )
        yield f"{self.machine.title}; {self.machine.kernel}"
        limit = "at most " if self.partial else ""
        yield f"{limit}{self.rounds} rounds of {self.frames} frames, rows in turns, each in a process of its own"
        if any(row.miou7 is not None for row in self.rows):
            yield f"mIoU-{len(self.subset)} on {self.split}, {self.pictures} pictures at their own sizes"
        yield f"ratio: a row's time over that of {self.reference or 'no row'} ({self.reference_rule})"
        found = self.conditions
        if found is not None and found.own_load is not None and found.other_load is not None:
            yield f"of all cores' time {found.own_load:.0%} own, {found.other_load:.0%} others' while rows were timed"

    def missing(self) -> Iterator[str]:
        """Rows that were not measured, or not wholly, with the reason."""
        yield from (f"{row.name}: {row.reason}" for row in self.rows if row.reason)

    def _parts(self) -> Iterator[str]:
        yield f"partial: {self.partial}" if self.partial else ""
        yield table(self.cells(), self.header)
        yield "\n".join(self.missing())
        words = {True: "met", False: "NOT met", None: "not known"}
        yield "\n".join(f"bar {words[bar.met]}: {bar.bar}: {bar.found}" for bar in self.bars)
        yield "\n".join((*self.lines(), *(f"note: {note}" for note in self.notes)))


def choose_reference(rows: Sequence[ComparedRow]) -> tuple[str | None, str]:
    """A row's name and the rule it was chosen by: RULE, or where no mIoU of an fp32 row is known RULE_WITHOUT_MIOU."""
    ours = [row for row in rows if row.precision is not None and row.p50_ms is not None]
    exact = [row for row in ours if row.precision == "fp32"]
    known = [row.miou7 for row in exact if row.miou7 is not None]
    if known:
        ours = [row for row in ours if row.miou7 is not None and row.miou7 >= max(known) - ALLOWED_DROP]
    elif exact:
        ours = exact
    name = min(ours, key=lambda row: row.p50_ms or 0.0).name if ours else None
    return name, RULE if known else RULE_WITHOUT_MIOU


def check_bars(rows: Sequence[ComparedRow], reference: str | None) -> tuple[Bar, ...]:
    """The project's bars (ratio ≥ 3 by hand, ≥ 2 OpenVINO raw, faster and no worse than DeepLab), as measured.

    They are about ours: none where the reference is a peer.
    """
    by_name = {row.name: row for row in rows}
    ours = by_name.get(reference or "")
    if ours is not None and ours.precision is None:
        return ()
    bars = [
        _ratio_bar(f"at least {wanted:g}x {name}", by_name.get(name), wanted)
        for name, wanted in ((BY_HAND, 3.0), (OPENVINO_RAW, 2.0))
        if name in by_name
    ]
    deeplabs = [_deeplab_bar(row, ours) for row in rows if row.name.startswith(DEEPLAB)]
    return (*bars, *deeplabs)


def _ratio_bar(bar: str, row: ComparedRow | None, wanted: float) -> Bar:
    if row is None or row.ratio is None:
        return Bar(bar, None, "not measured")
    return Bar(bar, row.ratio >= wanted, f"{row.ratio:.2f} ({row.ratio_low:.2f} to {row.ratio_high:.2f})")


def _deeplab_bar(row: ComparedRow, ours: ComparedRow | None) -> Bar:
    bar = f"faster than {row.name} at no lower mIoU"
    if row.ratio is None or row.miou7 is None or ours is None or ours.miou7 is None:
        return Bar(bar, None, "not measured")
    found = f"{row.ratio:.2f} times as fast, mIoU {100 * ours.miou7:.2f} % against {100 * row.miou7:.2f} %"
    return Bar(bar, row.ratio > 1 and ours.miou7 >= row.miou7, found)


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
