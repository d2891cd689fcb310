"""The published times beside the predicted ones: `fcn-bench predict --check`, and the tables of docs/predict.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fcnedge.runtime.command import table

from .efficiency import Efficiency, efficiency, predict_ms
from .forecast import forecast
from .kernel_time import KERNEL_MS
from .prediction import size_words
from .published import Published, published

TOOL, FORMAT = "fcn-bench predict --check", 1
AIM = 0.3
"""How far a prediction may be from a time that it was not fitted to."""


@dataclass(frozen=True)
class ValidationRow:
    """One published time. low_ms, high_ms: the range; error: predicted over published, minus 1; use: why it is here."""

    network: str
    device: str
    precision: str
    size: str
    published_ms: float
    predicted_ms: float
    low_ms: float
    high_ms: float
    error: float
    use: str
    reason: str | None
    source: str
    url: str
    published: str
    software: str


@dataclass(frozen=True)
class Validation:
    """Every published time, and the fitted numbers. worst: the largest error, either way, of what was not fitted to."""

    tool: str
    format: int
    kernel_ms: float
    worst: float
    efficiencies: tuple[Efficiency, ...]
    rows: tuple[ValidationRow, ...]

    def text(self) -> str:
        """Both tables and a verdict."""
        return "\n\n".join(part for part in self._parts() if part)

    def cells(self, use: str) -> list[tuple[str, ...]]:
        """The rows of one use, as words."""
        return [
            (
                *(
                    row.network,
                    row.device,
                    row.precision,
                    row.size,
                    f"{row.published_ms:.2f}",
                    f"{row.predicted_ms:.2f}",
                ),
                f"{row.low_ms:.2f} to {row.high_ms:.2f}",
                *(f"{100 * row.error:+.0f}%", row.source),
            )
            for row in self.rows
            if row.use == use
        ]

    def fitted_cells(self) -> list[tuple[str, ...]]:
        """One line per architecture."""
        return [
            (
                each.architecture,
                f"{100 * each.share:.0f}%",
                f"{each.low:.2f} to {each.high:.2f}",
                str(each.networks),
                f"taken from {each.taken_from}" if each.taken_from else "",
            )
            for each in self.efficiencies
        ]

    def tendency(self) -> str:
        """How many of what was not fitted to lie in the range, and on which side of the prediction."""
        held = [row for row in self.rows if row.use == "check"]
        inside = sum(row.low_ms <= row.published_ms <= row.high_ms for row in held)
        slower = sum(row.published_ms > row.predicted_ms for row in held)
        return f"{inside} of {len(held)} published times lie in the range, {slower} are slower than predicted"

    def _parts(self) -> Iterator[str]:
        yield "Not fitted to:"
        yield table(self.cells("check"), CHECK_HEADER)
        word = "within" if self.worst <= AIM else "NOT within"
        yield f"the largest error is {100 * self.worst:.0f}%: {word} the {100 * AIM:.0f}% aimed at; {self.tendency()}"
        yield "Fitted to:"
        yield table(self.cells("fit"), CHECK_HEADER)
        yield table(self.fitted_cells(), FITTED_HEADER)
        yield "Left out:"
        yield table(self.cells("left out"), CHECK_HEADER)
        yield "\n".join(f"{reason}" for reason in dict.fromkeys(row.reason for row in self.rows if row.reason))


CHECK_HEADER = ("network", "device", "in", "size", "published ms", "predicted ms", "range", "error", "source")
FITTED_HEADER = ("architecture", "share of peak", "published / predicted", "times fitted to", "")


def validate() -> Validation:
    """Predict every published time. Raises UserError where onnx is missing."""
    rows = tuple(_row(row) for row in published())
    architectures = dict.fromkeys(row.device.architecture for row in published())
    return Validation(
        tool=TOOL,
        format=FORMAT,
        kernel_ms=KERNEL_MS,
        worst=max(abs(row.error) for row in rows if row.use == "check"),
        efficiencies=tuple(efficiency(name) for name in (*architectures, "hopper", "blackwell")),
        rows=rows,
    )


def _row(row: Published) -> ValidationRow:
    predicted = predict_ms(row, efficiency(row.device.architecture).share)
    found = forecast(row.graph(), row.device, row.size).network
    return ValidationRow(
        network=row.network,
        device=row.device.name,
        precision=row.precision,
        size=size_words(row.size),
        published_ms=row.ms,
        predicted_ms=predicted,
        low_ms=found.low,
        high_ms=found.high,
        error=predicted / row.ms - 1,
        use=row.use,
        reason=row.reason,
        source=row.source,
        url=row.url,
        published=row.published,
        software=row.software,
    )
