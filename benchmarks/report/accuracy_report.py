"""What `fcn-bench accuracy` measured: one object, whose fields are the keys of its JSON, and its tables."""

from __future__ import annotations

from dataclasses import dataclass

from fcnedge.runtime.command import table

from ..machine import MachineFacts
from .frontier import on_frontier

TOOL, FORMAT = "fcn-bench accuracy", 1


@dataclass(frozen=True)
class AccuracyRow:
    """One graph with one backend. mIoU, IoU, accuracy and equality are shares of 1.

    size: `384x384 stretch`. graph_bytes: size of the graph with the files that hold its weights. iou: per class that
    occurs. drop_points: percentage points of miou_subset below the first row of the same bundle. labels_equal: share of
    all pixels, void too, that have that row's label. p50_ms: median of one frame through the segmenter, milliseconds,
    in turns with the other rows.
    """

    model: str
    size: str
    precision: str
    backend: str
    graph_bytes: int
    miou: float
    miou_subset: float
    drop_points: float
    labels_equal: float
    pixel_accuracy: float
    p50_ms: float
    iou: dict[str, float]

    @property
    def title(self) -> str:
        """`int8 openvino`."""
        return f"{self.precision} {self.backend}"


@dataclass(frozen=True)
class AccuracyReport:
    """All rows, on the same pictures at the pictures' own size. threads: of one inference, None for one per core."""

    tool: str
    format: int
    machine: MachineFacts
    split: str
    pictures: int
    subset: tuple[str, ...]
    threads: int | None
    rows: tuple[AccuracyRow, ...]

    @property
    def mean(self) -> str:
        """`mIoU-7`, the mean over the subset."""
        return f"mIoU-{len(self.subset)}"

    @property
    def conditions(self) -> str:
        """One sentence without its full stop: what was measured on what."""
        threads = {None: "one thread per core", 1: "one thread"}.get(self.threads, f"{self.threads} threads")
        models = ", ".join(dict.fromkeys(f"{row.model} at {row.size}" for row in self.rows))
        return f"{models} on {self.split}, {len(self.rows[0].iou)} classes occur, {threads}"

    def frontier(self) -> tuple[bool, ...]:
        """Per row: whether no other row is both at least as good and faster, or better and at least as fast."""
        return on_frontier([(row.p50_ms, row.miou_subset) for row in self.rows])

    def label(self, row: AccuracyRow) -> str:
        """A row's title, with what else tells it from the others: its size, or the name of its model."""
        sizes, models = {each.size for each in self.rows}, {each.model for each in self.rows}
        size = row.size.removesuffix(" stretch")
        return " ".join([*([row.model] if len(models) > 1 else []), *([size] if len(sizes) > 1 else []), row.title])

    def summary(self) -> tuple[tuple[str, ...], list[tuple]]:
        """(header, rows): what each row reaches."""
        header = (
            *("size", "precision", "backend", "MB", "mIoU %", f"{self.mean} %", "drop", "labels equal %"),
            *("pixels right %", "p50 ms", "frontier"),
        )
        return header, [
            (
                *(row.size, row.precision, row.backend, round(row.graph_bytes / 1e6, 2), 100 * row.miou),
                *(100 * row.miou_subset, round(row.drop_points, 2) + 0.0, 100 * row.labels_equal),
                *(100 * row.pixel_accuracy, row.p50_ms, "*" if best else ""),
            )
            for row, best in zip(self.rows, self.frontier(), strict=True)
        ]

    def classes(self) -> tuple[tuple[str, ...], list[tuple]]:
        """(header, rows): IoU in percent of each class that occurs, a column per row of the summary."""
        header = ("IoU %", *(self.label(row) for row in self.rows))
        return header, [(name, *(round(100 * row.iou[name], 2) for row in self.rows)) for name in self.rows[0].iou]

    def text(self) -> str:
        """The report as text tables."""
        tables = [table(rows, header) for header, rows in (self.summary(), self.classes())]
        return "\n\n".join((*tables, f"{self.conditions}; {self.legend}"))

    @property
    def legend(self) -> str:
        """What the columns of the summary mean, one sentence without its full stop."""
        return (
            f"drop in points of {self.mean}, and equal labels, against the first row of the same bundle; * on the "
            "frontier: no other row is both as good and faster"
        )
