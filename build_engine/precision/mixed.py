"""Automatic mixed precision: the fewest convolutions to leave in float so that INT8 holds a limit on the drop of mIoU.

1. The default placement. When it holds the limit, that is it.
2. Its convolutions by sensitivity (SQNR of the scores with each alone in INT8), worst first.
3. The first 1, 2, 4, 8, … of them in float, until the limit holds; then bisection between the last two numbers. Where
   more would be needed than anybody wants, the search ends here.
4. Each exception taken back by itself, the least sensitive first; it stays back when the limit still holds.

The drop does not fall evenly with the number of exceptions: errors of two layers may cancel, and mIoU moves in steps
of whole pixels. So step 3 finds *a* number that holds while one less, by this order, does not; step 4 takes out what
the order had wrong. The result holds the limit, measured, and no single exception can be spared. That there is no
smaller set of quite other layers would take 2^n measurements to know.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fcnedge.calibration.activations import load_graph
from fcnedge.calibration.ranges import Ranges
from fcnedge.calibration.voc import VocSample
from fcnedge.runtime import BilinearHead
from fcnedge.runtime.command import Progress
from fcnedge.runtime.errors import UserError

from .evaluation import LabelledPictures, int8_bytes
from .placement import place
from .sensitivity import rank_by_sqnr

ORDER_PICTURES = 8
"""Pictures that the order of step 2 is measured on: about right is enough, and each layer takes a graph of its own."""


@dataclass(frozen=True)
class Trial:
    """One graph that was measured. exclude: all convolutions that were left in float by name, sorted.

    drop: percentage points of mIoU below FP32's; drop_error: its standard error, NaN for one picture; sqnr_db: of the
    scores.
    """

    exclude: tuple[str, ...]
    drop: float
    drop_error: float
    sqnr_db: float


class TooManyExceptionsError(UserError):
    """The limit takes more exceptions than are wanted. layers: those that would be needed first, worst first."""

    def __init__(self, message: str, layers: Sequence[str]) -> None:
        super().__init__(message)
        self.layers = tuple(layers)


@dataclass(frozen=True)
class MixedResult:
    """exclude: what `place(model, exclude=…)` takes to hold the limit, with what the caller excluded.

    drop: percentage points of mIoU below FP32's; miou_fp32, miou_int8: shares of 1; tried: in the order of measuring.
    """

    exclude: frozenset[str]
    drop: float
    miou_fp32: float
    miou_int8: float
    tried: tuple[Trial, ...]


def fewest_exceptions(
    fp32_path: Path,
    ranges: Ranges,
    samples: Sequence[VocSample],
    size: tuple[int, int],
    fit: str,
    head: BilinearHead,
    *,
    max_drop: float,
    exclude: Collection[str] = frozenset(),
    subset: Sequence[int] | None = None,
    elsewhere: Literal["fp16", "fp32"] = "fp16",
    max_exceptions: int | None = None,
    threads: int | None = None,
) -> MixedResult:
    """Find the INT8 placement with the fewest exceptions whose mIoU lies at most `max_drop` points below FP32's.

    fp32_path: fused float32 graph; samples: labelled pictures that accuracy is not reported on; size: (height, width)
    of the network; max_drop: percentage points; exclude: convolutions to leave in float in any case; subset: class ids
    that mIoU is the mean of, None for all that occur; elsewhere: as in to_int8, what is measured is what is returned;
    max_exceptions: the most that are of use, None for no limit.
    Memory: see LabelledPictures. Time: a trial takes len(samples) inferences, a convolution ORDER_PICTURES once.
    Raises UserError when max_drop is negative or no number; when the limit cannot be held, with what remains of the
    drop; when it can only with nothing left in INT8, with all those layers; and what `to_int8` and `place` raise.
    TooManyExceptionsError, which is one, when more than max_exceptions would be needed.
    """
    if not 0 <= max_drop < math.inf:
        raise UserError(f"the largest drop is {max_drop:g}; it must be a number of points, 0 or more.")
    pictures = LabelledPictures(
        fp32_path, samples, size, fit, head, subset=subset, sqnr_pictures=ORDER_PICTURES, threads=threads
    )
    search = _Search(fp32_path, ranges, pictures, frozenset(exclude), max_drop, elsewhere, max_exceptions)
    with contextlib.closing(search.progress):
        found = search.run()
    return MixedResult(
        exclude=frozenset(found.exclude),
        drop=found.drop,
        miou_fp32=pictures.miou,
        miou_int8=pictures.miou - found.drop / 100,
        tried=tuple(search.tried.values()),
    )


class _Search:
    """One search: everything that was tried, by its exceptions, so that nothing is measured twice."""

    def __init__(
        self,
        fp32: Path,
        ranges: Ranges,
        pictures: LabelledPictures,
        exclude: frozenset[str],
        max_drop: float,
        elsewhere: Literal["fp16", "fp32"],
        max_exceptions: int | None,
    ) -> None:
        self._fp32, self._ranges, self._pictures = fp32, ranges, pictures
        self._exclude, self._max_drop = exclude, max_drop
        self._elsewhere: Literal["fp16", "fp32"] = elsewhere
        self._max_exceptions = max_exceptions
        self.tried: dict[frozenset[str], Trial] = {}
        self.progress = Progress()

    def run(self) -> Trial:
        """The trial that holds with the fewest exceptions. Raises UserError when there is none."""
        if self._holds(()):
            return self._try(())
        placed = [layer.node for layer in place(load_graph(self._fp32), exclude=self._exclude).layers]
        order = list(rank_by_sqnr(self._fp32, self._ranges, self._pictures, placed))
        exceptions = self._taken_back(order[: self._fewest_in(order)])
        if len(exceptions) == len(order):
            raise UserError(self._nothing_left(order))
        return self._try(exceptions)

    def _fewest_in(self, order: Sequence[str]) -> int:
        """How many of the worst layers must stay in float, by doubling and bisection."""
        most = len(order) if self._max_exceptions is None else min(self._max_exceptions, len(order))
        fails, holds = 0, min(1, most)
        while not self._holds(order[:holds]):
            if holds == len(order):
                raise UserError(self._impossible(order))
            if holds == most:
                raise TooManyExceptionsError(self._too_many(order, most), order[:most])
            fails, holds = holds, min(2 * holds, most)
        while holds - fails > 1:
            middle = (fails + holds) // 2
            fails, holds = (fails, middle) if self._holds(order[:middle]) else (middle, holds)
        return holds

    def _taken_back(self, exceptions: Sequence[str]) -> list[str]:
        """`exceptions`, worst first, without those that the limit holds without."""
        kept = list(exceptions)
        for layer in reversed(exceptions):
            without = [name for name in kept if name != layer]
            if self._holds(without):
                kept = without
        return kept

    def _holds(self, exceptions: Collection[str]) -> bool:
        return self._try(exceptions).drop <= self._max_drop

    def _try(self, exceptions: Collection[str]) -> Trial:
        exclude = self._exclude | frozenset(exceptions)
        if exclude not in self.tried:
            self.progress(f"mIoU with {len(exclude)} layers left in float")
            placement = place(load_graph(self._fp32), exclude=exclude)
            measured = self._pictures.measure(
                int8_bytes(self._fp32, self._ranges.tensors, placement, elsewhere=self._elsewhere)
            )
            self.tried[exclude] = Trial(tuple(sorted(exclude)), measured.drop, measured.drop_error, measured.sqnr_db)
        return self.tried[exclude]

    def _impossible(self, order: Sequence[str]) -> str:
        drop = self._try(order).drop
        return (
            f"a drop of at most {self._max_drop:g} points of mIoU cannot be held on {len(self._pictures)} pictures: "
            f"{self._try(()).drop:.2f} with INT8 as placed by default, and {drop:.2f} even "
            f"with every convolution left in {self._remainder}; allow a larger drop."
        )

    def _too_many(self, order: Sequence[str], most: int) -> str:
        return (
            f"a drop of at most {self._max_drop:g} points of mIoU needs more than {most} of {len(order)} convolutions "
            f"left in {self._remainder} ({', '.join(order[:most])} and others); allow a larger drop, or collect better "
            "ranges."
        )

    def _nothing_left(self, order: Sequence[str]) -> str:
        return (
            f"a drop of at most {self._max_drop:g} points of mIoU needs all {len(order)} convolutions left in "
            f"{self._remainder} ({', '.join(order)}), so that nothing stays in INT8 ({self._try(()).drop:.2f} points "
            "with INT8 as placed by default); allow a larger drop, collect better ranges, or build without int8."
        )

    @property
    def _remainder(self) -> str:
        return {"fp16": "FP16", "fp32": "FP32"}[self._elsewhere]
