"""The part of a build after FP32: FP16 and INT8 graphs from calibrated ranges, and what each costs in accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fcnedge.calibration.collect import collect, preprocessing_sha256
from fcnedge.calibration.pictures import PictureList
from fcnedge.calibration.ranges import Ranges, read_ranges, replace_file
from fcnedge.calibration.tensorrt_cache import write_cache
from fcnedge.calibration.voc import VocSample, check_voc, read_voc
from fcnedge.runtime import BilinearHead, Bundle
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import PRECISIONS, Manifest
from fcnedge.runtime.opencv import load_cv2

from .labelled_accuracy import Accuracy, mean_iou
from .model_source import WEIGHTS_FOLDER, ModelSource, shipped_models
from .precision.variant import Fp32Reference, VariantReport, write_variant

RANGES_FILE = "ranges.json"
CACHE_FILE = "calibration.cache"
MIN_INT8_SHARE = 0.5
"""Of the convolutions that INT8 would take, this share must be left in it after a search for exceptions.

With fewer it is FP16 by another name: no smaller and no faster worth the name, and what is wrong are the ranges.
"""


@dataclass(frozen=True)
class PrecisionPlan:
    """What to build beside FP32, checked as far as is possible before the build.

    precisions: fp32 first, then what was asked for, most exact first; ranges: None to collect them on the verify
    pictures; origin: of the ranges, in words; exclude: convolutions that INT8 leaves in float; samples: labelled
    pictures, none for no mIoU; split: their list; max_drop: the most points of mIoU that a precision may lose, or None.
    """

    precisions: tuple[str, ...] = ("fp32",)
    ranges: Ranges | None = None
    origin: str = ""
    exclude: frozenset[str] = frozenset()
    samples: tuple[VocSample, ...] = ()
    split: str = ""
    max_drop: float | None = None


@dataclass(frozen=True)
class RangesUsed:
    """Where the ranges came from. method: minmax, percentile, entropy or mse; images: pictures they were taken on."""

    origin: str
    method: str
    images: int


@dataclass(frozen=True)
class TypedResult:
    """precisions: typed graph by precision, without fp32; accuracy: None without labelled pictures."""

    ranges: RangesUsed | None = None
    precisions: dict[str, VariantReport] = field(default_factory=dict)
    accuracy: Accuracy | None = None


def plan_precisions(
    source: ModelSource,
    precision: str = "fp32",
    *,
    ranges: Path | None = None,
    exclude: str | None = None,
    data: Path | None = None,
    split: str = "val",
    max_drop: float | None = None,
) -> PrecisionPlan:
    """Turn the command line's words into a plan. precision, exclude: names with commas between them.

    ranges: None takes those that ship with the model, if there are any. Raises UserError for an unknown precision,
    options that need another, int8 without ranges, damaged ranges, and labelled pictures that are not in order.
    """
    precisions = _precisions(precision)
    if exclude is not None and "int8" not in precisions:
        raise UserError("--exclude names layers that INT8 leaves in float; add int8 to --precision.")
    if ranges is not None and precisions == ("fp32",):
        raise UserError("--ranges is for FP16 and INT8; add --precision fp32,fp16,int8.")
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
        split=split,
        max_drop=max_drop,
    )


def run_typed_stage(
    plan: PrecisionPlan, bundle: Bundle, images: list[np.ndarray], work: Path, start: Callable[[str], None]
) -> TypedResult:
    """Write every further precision of `plan` into the folder of `bundle`, which holds FP32, and measure them all.

    images: verify pictures, (H, W, 3) uint8 BGR at the network's size; work: folder for scratch files; start: called
    with the name of each step. Graphs are open one after the other, never two at a time.
    Raises UserError when ranges belong to something else, a graph disagrees with FP32 or loses more than the limit.
    """
    stage = _Stage(plan, bundle, images, work, start)
    for precision in plan.precisions[1:]:
        stage.add(precision)
    return stage.result()


class _Stage:
    """One run over the precisions of a plan."""

    def __init__(
        self, plan: PrecisionPlan, bundle: Bundle, images: list[np.ndarray], work: Path, start: Callable[[str], None]
    ) -> None:
        self._plan, self._bundle, self._start = plan, bundle, start
        self._fp32 = bundle.model("fp32")
        self._ranges, self._used = None, None
        self._variants: dict[str, VariantReport] = {}
        self._miou: dict[str, float] = {}
        self._exceptions: frozenset[str] = frozenset()
        if len(plan.precisions) > 1:
            start("ranges")
            self._ranges, self._used = _fitting_ranges(plan, bundle, images, work)
            self._reference = Fp32Reference(self._fp32, images, head_of(bundle.manifest))
        if plan.samples:
            start("mIoU of fp32")
            self._miou["fp32"] = mean_iou(bundle, self._fp32, plan.samples)

    def add(self, precision: str) -> None:
        """Write one precision, measure it, and refuse it where it is not good enough."""
        variant = self._write(precision, self._plan.exclude)
        limit = self._plan.max_drop
        if limit is not None and self._drop(precision) > limit and precision == "int8":
            variant = self._with_exceptions(variant, limit)
        if limit is not None and self._drop(precision) > limit:
            advice = "leave fp16 out" if precision == "fp16" else "collect the ranges on more pictures, exclude layers"
            raise UserError(
                f"{precision} loses {self._drop(precision):.2f} points of mIoU on {self._plan.split}, the limit is "
                f"{limit:g}, so no bundle was written; {advice}, or raise --max-drop."
            )
        variant.check()
        self._variants[precision] = variant
        if precision == "int8":
            self._write_ranges()

    def result(self) -> TypedResult:
        """What was written and measured."""
        plan, accuracy = self._plan, None
        if plan.samples:
            accuracy = Accuracy(
                split=plan.split,
                pictures=len(plan.samples),
                miou=dict(self._miou),
                drop_points={name: self._drop(name) for name in self._variants},
                max_drop=plan.max_drop,
                exceptions=tuple(sorted(self._exceptions)),
            )
        return TypedResult(self._used, self._variants, accuracy)

    def _write(self, precision: str, exclude: frozenset[str]) -> VariantReport:
        assert self._ranges is not None, "there is a precision beside fp32"
        self._start(precision)
        target = self._bundle.path / f"model.{precision}.onnx"
        excluded = exclude if precision == "int8" else frozenset()
        variant = write_variant(precision, self._ranges, target, reference=self._reference, exclude=excluded)
        if self._plan.samples:
            self._start(f"mIoU of {precision}")
            self._miou[precision] = mean_iou(self._bundle, target, self._plan.samples)
        return variant

    def _drop(self, precision: str) -> float:
        return 100 * (self._miou["fp32"] - self._miou[precision])

    def _with_exceptions(self, variant: VariantReport, limit: float) -> VariantReport:
        """INT8 with the fewest layers in float that hold the limit. Raises UserError when that is too many."""
        from .precision.mixed import fewest_exceptions

        manifest, head = self._bundle.manifest, head_of(self._bundle.manifest)
        if head is None or self._ranges is None:  # scores are needed to find the layers that spoil them
            return variant
        self._start("search layers to leave in float")
        found = fewest_exceptions(
            self._fp32,
            self._ranges,
            list(self._plan.samples),
            (manifest.input.height, manifest.input.width),
            manifest.input.fit,
            head,
            max_drop=limit,
            exclude=self._plan.exclude,
            threads=None,
        )
        self._exceptions = frozenset(found.exclude) - self._plan.exclude
        left = len(set(variant.int8_layers) - self._exceptions)
        if left < MIN_INT8_SHARE * len(variant.int8_layers):
            raise UserError(
                f"int8 loses {self._drop('int8'):.2f} points of mIoU on {self._plan.split}, and to hold the limit of "
                f"{limit:g} it would need {len(self._exceptions)} of {len(variant.int8_layers)} convolutions in float "
                f"({_shown(self._exceptions)}), so no bundle was written; collect the ranges on more pictures, take "
                f"fp16, or raise --max-drop."
            )
        return self._write("int8", self._plan.exclude | self._exceptions)

    def _write_ranges(self) -> None:
        """ranges.json, and the same for TensorRT up to 10, without tensors that were zero: they have no step."""
        assert self._ranges is not None, "int8 has ranges"
        self._ranges.write(self._bundle.path / RANGES_FILE)
        moving = {name: each for name, each in self._ranges.tensors.items() if each.threshold > 0}
        replace_file(self._bundle.path / CACHE_FILE, write_cache(moving).encode())


def head_of(manifest: Manifest) -> BilinearHead | None:
    """The head that the runtime puts behind the scores; None when the graph gives labels."""
    return BilinearHead(manifest.head.geometry) if manifest.head.kind == "bilinear" else None


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


def _samples(data: Path, split: str, classes: int) -> tuple[VocSample, ...]:
    samples = read_voc(data, split)
    check_voc(samples, classes)
    return tuple(samples)


def _fitting_ranges(
    plan: PrecisionPlan, bundle: Bundle, images: list[np.ndarray], work: Path
) -> tuple[Ranges, RangesUsed]:
    """The plan's ranges, checked against the graph; for FP16 alone also the verify pictures' own."""
    ranges, origin = plan.ranges, plan.origin
    if ranges is not None:
        try:
            _check_ranges(ranges, bundle)
        except UserError as error:
            # FP16 needs no clipping limits, only to know what overflows: the verify pictures say that too.
            if not origin.startswith("shipped") or "int8" in plan.precisions:
                raise UserError(f"ranges ({origin}): {error}") from None
            ranges = None
    if ranges is None:
        ranges, origin = _collected(bundle, images, work), "collected on the verify pictures"
    return ranges, RangesUsed(origin, ranges.method, ranges.images)


def _check_ranges(ranges: Ranges, bundle: Bundle) -> None:
    from fcnedge.calibration.activations import load_graph
    from fcnedge.calibration.fingerprint import graph_fingerprint

    if ranges.preprocessing_sha256 != preprocessing_sha256(bundle.manifest):
        raise UserError(
            "these ranges were collected with another input size, fit, mean, scale or channel order; collect the "
            "ranges again with fcn-calibrate ranges."
        )
    ranges.check(graph_fingerprint(load_graph(bundle.model("fp32"))))


def _collected(bundle: Bundle, images: list[np.ndarray], work: Path) -> Ranges:
    """Minimum and maximum on the verify pictures, which are at the network's size: as PNG they lose nothing."""
    cv2 = load_cv2()
    paths = tuple(work / f"verify{index:04d}.png" for index in range(len(images)))
    for path, image in zip(paths, images, strict=True):
        if not cv2.imwrite(str(path), image):
            raise UserError(f"{path} cannot be written; free some disk space.")
    names = tuple(path.name for path in paths)
    return collect(bundle, PictureList(names, paths, len(paths), "the verify pictures"), method="minmax")


def _shown(layers: frozenset[str]) -> str:
    names = sorted(layers)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
