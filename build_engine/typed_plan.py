"""What to build beside FP32: the command line's words, checked before the build starts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from fcnedge.calibration.ranges import Ranges, read_ranges
from fcnedge.calibration.voc import VocSample, check_voc, read_voc
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import PRECISIONS

from .model_source import WEIGHTS_FOLDER, ModelSource, shipped_models

CHOICE_PICTURES = 192
"""Exceptions from INT8 are chosen on so many: a trial takes seconds, and mIoU is known to some tenths of a point."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrecisionPlan:
    """What to build beside FP32, checked as far as is possible before the build.

    precisions: fp32 first, then what was asked for, most exact first; ranges: None to collect them on the verify
    pictures; origin: of the ranges, in words; exclude: convolutions that INT8 leaves in float; samples: labelled
    pictures, none for no mIoU; data, split: their folder and list; subset: classes whose mean counts, None for all that
    occur; max_drop: the most points of mIoU that a precision may lose, or None.
    """

    precisions: tuple[str, ...] = ("fp32",)
    ranges: Ranges | None = None
    origin: str = ""
    exclude: frozenset[str] = frozenset()
    samples: tuple[VocSample, ...] = ()
    data: Path | None = None
    split: str = ""
    subset: tuple[str, ...] | None = None
    max_drop: float | None = None


def plan_precisions(
    source: ModelSource,
    precision: str = "fp32",
    *,
    ranges: Path | None = None,
    exclude: str | None = None,
    data: Path | None = None,
    split: str = "val",
    subset: str | None = None,
    max_drop: float | None = None,
) -> PrecisionPlan:
    """Turn the command line's words into a plan. precision, exclude, subset: names with commas between.

    ranges: None takes those that ship with the model, if there are any. Raises UserError for an unknown precision,
    options that need another, int8 without ranges, damaged ranges, and labelled pictures that are not in order.
    """
    precisions = _precisions(precision)
    if exclude is not None and "int8" not in precisions:
        raise UserError("--exclude names layers that INT8 leaves in float; add int8 to --precision.")
    if ranges is not None and precisions == ("fp32",):
        raise UserError("--ranges is for FP16 and INT8; add --precision fp32,fp16,int8.")
    if subset is not None and data is None:
        raise UserError("--subset names the classes to measure on labelled pictures; name their folder with --data.")
    if max_drop is not None and data is None:
        raise UserError("--max-drop is measured on labelled pictures; name a folder in VOC layout with --data.")
    if max_drop is not None and precisions == ("fp32",):
        raise UserError("--max-drop limits what FP16 and INT8 lose; add --precision fp32,fp16,int8.")
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise UserError(f"--max-drop is {max_drop:g}; it is in points of mIoU, from 0 to 100.")
    found, origin = _find_ranges(source, precisions, ranges)
    return PrecisionPlan(
        precisions=precisions,
        ranges=found,
        origin=origin,
        exclude=frozenset() if exclude is None else frozenset(_listed("--exclude", exclude)),
        samples=() if data is None else _samples(data, split, len(source.classes)),
        data=data,
        split=split,
        subset=None if subset is None else _subset(subset, source.classes),
        max_drop=max_drop,
    )


def choice_pictures(plan: PrecisionPlan) -> tuple[list[VocSample], str]:
    """The labelled pictures that exceptions from INT8 are chosen on, and which they are in words.

    Of `train`, without what the ranges were made from and what mIoU is reported on; where nothing is left of it, or the
    folder has no such list, those that mIoU is reported on.
    """
    from .precision.evaluation import choose_samples

    assert plan.data is not None, "a plan with a limit has labelled pictures"
    reported = {sample.name for sample in plan.samples}
    try:
        chosen = choose_samples(plan.data, None, CHOICE_PICTURES)
    except UserError as error:
        _log.info("exceptions from INT8 are chosen on %s: %s", plan.split, error)
        chosen = []
    chosen = [sample for sample in chosen if sample.name not in reported]
    if not chosen:
        return list(plan.samples), f"{plan.split}, {len(plan.samples)} pictures"
    return chosen, f"train without calibration, {len(chosen)} pictures"


def _precisions(text: str) -> tuple[str, ...]:
    words = _listed("--precision", text)
    unknown = [word for word in words if word not in PRECISIONS]
    if unknown:
        raise UserError(f"--precision has {unknown[0]!r}; it takes {', '.join(PRECISIONS)} with commas between them.")
    return tuple(precision for precision in PRECISIONS if precision == "fp32" or precision in words)


def _listed(flag: str, text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    if "" in words:
        raise UserError(f"{flag} is {text!r}; it takes names with commas between them.")
    return words


def _find_ranges(source: ModelSource, precisions: tuple[str, ...], path: Path | None) -> tuple[Ranges | None, str]:
    if precisions == ("fp32",):
        return None, ""
    if path is not None:
        return read_ranges(path), str(path)
    shipped = WEIGHTS_FOLDER / f"{source.name}.ranges.json"
    if source.name in shipped_models() and shipped.is_file():
        return read_ranges(shipped), f"shipped with {source.name}"
    if "int8" in precisions:
        raise UserError(
            f"int8 needs activation ranges, and {source.name} has none; build it in fp32, collect them with "
            f"fcn-calibrate ranges BUNDLE --data VOC, and pass --ranges ranges.json."
        )
    return None, ""


def _subset(text: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(_listed("--subset", text)))
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise UserError(
            f"--subset names {', '.join(unknown)}, which the model does not have; it has {', '.join(classes)}."
        )
    return names


def _samples(data: Path, split: str, classes: int) -> tuple[VocSample, ...]:
    samples = read_voc(data, split)
    check_voc(samples, classes)
    return tuple(samples)
