"""What to build beside FP32: the command line's words, checked before the build starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fcnedge.calibration.ranges import Ranges, read_ranges
from fcnedge.calibration.spacing import evenly_spaced
from fcnedge.calibration.voc import VocSample, check_voc, read_voc, read_voc_images, splits
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import PRECISIONS

from .model_source import WEIGHTS_FOLDER, ModelSource, shipped_models

CHOICE_PICTURES = 192
"""Exceptions from INT8 are chosen on so many: a trial takes seconds, and mIoU is known to some tenths of a point."""

_TRAIN, _CALIBRATION = "train", "calibration"


@dataclass(frozen=True)
class PrecisionPlan:
    """What to build beside FP32, checked as far as is possible before the build.

    precisions: fp32 first, then what was asked for, most exact first; ranges: None to collect them on the verify
    pictures; origin: of the ranges, in words; exclude: convolutions that INT8 leaves in float; samples: labelled
    pictures, none for no mIoU; split: their list; choice: labelled pictures to choose exceptions from INT8 on, and
    chosen_on: which these are in words; subset: classes whose mean counts, None for all that occur; max_drop: the most
    points of mIoU that a precision may lose, or None.
    """

    precisions: tuple[str, ...] = ("fp32",)
    ranges: Ranges | None = None
    origin: str = ""
    exclude: frozenset[str] = frozenset()
    samples: tuple[VocSample, ...] = ()
    split: str = ""
    choice: tuple[VocSample, ...] = ()
    chosen_on: str | None = None
    subset: tuple[str, ...] | None = None
    max_drop: float | None = None


def plan_precisions(
    source: ModelSource,
    precision: str = "fp32",
    *,
    head: str = "bilinear",
    ranges: Path | None = None,
    exclude: str | None = None,
    data: Path | None = None,
    split: str = "val",
    subset: str | None = None,
    max_drop: float | None = None,
) -> PrecisionPlan:
    """Turn the command line's words into a plan. precision, exclude, subset: names with commas between.

    head: as in `build_bundle`; ranges: None takes those that ship with the model, if there are any. Raises UserError
    for an unknown precision, options that need another, int8 without ranges, damaged ranges, and labelled pictures
    that are not in order.
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
    if head == "labels" and "int8" in precisions and ranges is None:
        raise UserError(
            f"the ranges {origin} are of its graph with a bilinear head; build it with --head labels in fp32, collect "
            "ranges of that bundle with fcn-calibrate ranges, and pass --ranges ranges.json."
        )
    samples = () if data is None else _samples(data, split, len(source.classes))
    choice, chosen_on = (), None
    if data is not None and max_drop is not None and "int8" in precisions:
        choice, chosen_on = _choice(data, split, samples, len(source.classes))
    return PrecisionPlan(
        precisions=precisions,
        ranges=found,
        origin=origin,
        exclude=frozenset() if exclude is None else frozenset(_listed("--exclude", exclude)),
        samples=samples,
        split=split,
        choice=choice,
        chosen_on=chosen_on,
        subset=None if subset is None else _subset(subset, source.classes),
        max_drop=max_drop,
    )


def _choice(data: Path, split: str, reported: tuple[VocSample, ...], classes: int) -> tuple[tuple[VocSample, ...], str]:
    """Pictures that exceptions from INT8 are chosen on, and which they are in words: of `train`, evenly spaced.

    Without those of the list `calibration`, and without those that mIoU is reported on; where there is no such list, or
    nothing is left of it, the reported ones after all.
    """
    if _TRAIN in splits(data):
        taken = {sample.name for sample in reported}
        words = _TRAIN
        if _CALIBRATION in splits(data):
            taken |= {name for name, _ in read_voc_images(data, _CALIBRATION)}
            words += f" without {_CALIBRATION}"
        left = [sample for sample in read_voc(data, _TRAIN) if sample.name not in taken]
        chosen = tuple(evenly_spaced(left, CHOICE_PICTURES))
        if chosen:
            check_voc(chosen, classes)
            return chosen, f"{words}, {len(chosen)} pictures"
    return reported, f"{split}, the {len(reported)} pictures that mIoU is reported on"


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
