"""Two reports of the same machine and model: which stages have become slower, and how sure that is.

Ratios are of medians, with the bootstrap interval of `timing.statistics`. That knows how much times vary within a run,
not how much one run differs from the next; so a change counts only when its whole interval lies beyond a margin.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.runtime.command import table
from fcnedge.runtime.errors import UserError

from ..timing.stages import STAGES
from ..timing.statistics import ratio_of_medians

MARGIN = 0.05
JUDGED = ("frame_to_mask", "end_to_end")
"""A regression of these ends in exit code 3: a stage of microseconds may double and nobody will notice."""
EXIT_REGRESSION = 3
_SAME_MACHINE = ("cpu", "board", "architecture", "cores", "usable_cores", "container_cores", "gpus", "power_mode")
_SAME_MODEL = ("name", "input", "backend", "precision", "threads", "sha256")
_SAME_SOURCE = ("uri", "frame_sizes")
FEWEST = 10
"""Frames of either report without which nothing is compared."""


@dataclass(frozen=True)
class StageChange:
    """One stage's median now over then. verdict: slower, faster or same, beyond the margin with its whole interval."""

    stage: str
    old_p50_ms: float
    new_p50_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """This run against the report in the file `baseline`. differences: between what the two ran on, forced past.

    versions: packages that have changed, which is no difference: it is what a comparison is made for.
    """

    baseline: str
    margin: float
    rows: tuple[StageChange, ...]
    regression: bool
    differences: tuple[str, ...]
    versions: tuple[str, ...]

    def text(self) -> str:
        """The comparison as a text table and a verdict."""
        rows = [
            (
                *(row.stage, row.old_p50_ms, row.new_p50_ms, f"{row.ratio:.3f}"),
                *(f"{row.ratio_low:.3f} to {row.ratio_high:.3f}", row.verdict),
            )
            for row in self.rows
        ]
        lines = [table(rows, ("stage", "then ms", "now ms", "ratio", "95% interval", "verdict"))]
        lines += [f"not the same: {difference}" for difference in self.differences]
        lines += [f"changed since: {version}" for version in self.versions]
        lines.append(f"{self.verdict} against {self.baseline}")
        return "\n".join(lines)

    @property
    def verdict(self) -> str:
        """`regression of frame_to_mask`, that there is none, or that nobody knows."""
        if not any(row.stage in JUDGED for row in self.rows):
            return f"too few frames to tell a regression, {FEWEST} are needed,"
        slower = [row.stage for row in self.rows if row.stage in JUDGED and row.verdict == "slower"]
        if slower:
            return f"regression of {' and '.join(slower)} by more than {self.margin:.0%}"
        return f"no regression by more than {self.margin:.0%}"


def read_baseline(path: Path) -> dict[str, Any]:
    """A report that `fcn-bench latency --json` wrote. Raises UserError for anything else."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the baseline {path} cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:  # no JSON, or no text at all
        raise UserError(f"the baseline {path} is not JSON; take a file that --json wrote.") from error
    if not isinstance(report, dict) or report.get("tool") != "fcn-bench latency" or report.get("format") != 1:
        raise UserError(f"the baseline {path} is no report of fcn-bench latency in format 1; measure it anew.")
    try:
        for part, keys in (("machine", _SAME_MACHINE), ("model", _SAME_MODEL), ("source", _SAME_SOURCE)):
            _values(report[part], keys)
        dict(report["machine"]["packages"])
        frames = max(len(_samples(report, stage)) for stage in JUDGED)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"the baseline {path} lacks what a report holds; it was edited: measure it anew.") from error
    if frames < FEWEST:
        raise UserError(f"the baseline {path} holds {frames} frames; a comparison needs {FEWEST}: measure it anew.")
    return report


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """What makes two reports (as JSON data) incomparable: `model precision: fp32, now int8`.

    new: may lack what is not known yet.
    """
    found = []
    for part, keys in (("machine", _SAME_MACHINE), ("model", _SAME_MODEL), ("source", _SAME_SOURCE)):
        then, now = old[part], new.get(part, {})
        for key in keys:
            if key in now and then[key] != now[key]:
                what = "hash" if key == "sha256" else key
                found.append(f"{part} {what}: {_shown(then[key])}, now {_shown(now[key])}")
    return tuple(found)


def refuse_other(old: Mapping[str, Any], new: Mapping[str, Any], path: Path, *, force: bool) -> None:
    """Raise UserError where the two reports are of different machines, models or sources, unless forced."""
    found = differences(old, new)
    if found and not force:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(
            f"{path} cannot be compared with this run, for they differ in {'; '.join(found[:3])}{more}; measure a "
            "baseline like this run, or compare all the same with --force."
        )


def compare_reports(
    old: Mapping[str, Any], new: Mapping[str, Any], path: Path, *, margin: float = MARGIN
) -> Comparison:
    """Compare the JSON data of two reports, whatever they ran on. path: where the old one lies."""
    rows = []
    for stage in STAGES:
        then, now = _samples(old, stage), _samples(new, stage)
        if min(len(then), len(now)) < FEWEST or not np.median(then) > 0:
            continue
        found = ratio_of_medians(now, then)
        rows.append(
            StageChange(
                stage=stage,
                old_p50_ms=float(np.median(then)),
                new_p50_ms=float(np.median(now)),
                ratio=found.ratio,
                ratio_low=found.low,
                ratio_high=found.high,
                verdict=_verdict(found.low, found.high, margin),
            )
        )
    return Comparison(
        baseline=str(path),
        margin=margin,
        rows=tuple(rows),
        regression=any(row.stage in JUDGED and row.verdict == "slower" for row in rows),
        differences=differences(old, new),
        versions=_versions(old["machine"]["packages"], new["machine"]["packages"]),
    )


def _verdict(low: float, high: float, margin: float) -> str:
    if low > 1 + margin:
        return "slower"
    return "faster" if high < 1 / (1 + margin) else "same"


def _versions(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    names = sorted({*old, *new})
    return tuple(
        f"{name} {old.get(name, 'none')}, now {new.get(name, 'none')}"
        for name in names
        if old.get(name) != new.get(name)
    )


def _values(part: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: part[key] for key in keys}


def _samples(report: Mapping[str, Any], stage: str) -> np.ndarray:
    values = report["samples"]["stages_ms"].get(stage)
    return np.array([value for value in values or () if value is not None], float)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {str(inner)[:12]}" for name, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
