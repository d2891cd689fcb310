"""The part of a build after FP32: FP16 and INT8 graphs from calibrated ranges, and what each costs in accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fcnedge.calibration.collect import collect, preprocessing_sha256
from fcnedge.calibration.pictures import PictureList
from fcnedge.calibration.ranges import Ranges, replace_file
from fcnedge.calibration.tensorrt_cache import write_cache
from fcnedge.runtime import BilinearHead, Bundle
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import Manifest
from fcnedge.runtime.opencv import load_cv2

from .labelled_accuracy import Accuracy, class_ids, mean_iou
from .precision.variant import FORMS, Fp32Reference, VariantReport, write_variant
from .typed_plan import PrecisionPlan

RANGES_FILE = "ranges.json"
CACHE_FILE = "calibration.cache"
MIN_INT8_SHARE = 0.5
"""Of the convolutions that INT8 would take, this share must be left in it after a search for exceptions.

With fewer it is FP16 by another name: no smaller and no faster worth the name, and what is wrong are the ranges.
"""


@dataclass(frozen=True)
class RangesUsed:
    """Where the ranges came from. method: minmax, percentile, entropy or mse; images: pictures they were taken on."""

    origin: str
    method: str
    images: int


@dataclass(frozen=True)
class TypedResult:
    """precisions: typed graph by Form.title, without fp32; accuracy: None without labelled pictures."""

    ranges: RangesUsed | None = None
    precisions: dict[str, VariantReport] = field(default_factory=dict)
    accuracy: Accuracy | None = None


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
        self._chosen_on: str | None = None
        if len(plan.precisions) > 1:
            start("ranges")
            self._ranges, self._used = _fitting_ranges(plan, bundle, images, work)
            self._reference = Fp32Reference(self._fp32, images, head_of(bundle.manifest))
        if plan.samples:
            start("mIoU of fp32")
            self._miou["fp32"] = mean_iou(bundle, self._fp32, plan.samples, plan.subset)

    def add(self, precision: str) -> None:
        """Write all graphs of one precision, measure them, and refuse it where one is not good enough."""
        limit = self._plan.max_drop
        exclude = self._plan.exclude if precision == "int8" else frozenset()
        variants = self._write(precision, exclude)
        if limit is not None and precision == "int8" and self._worst(variants)[1] > limit:
            variants = self._with_exceptions(variants, limit)
        if limit is not None and self._worst(variants)[1] > limit:
            title, drop = self._worst(variants)
            advice = "leave fp16 out" if precision == "fp16" else "collect the ranges on more pictures, exclude layers"
            raise UserError(
                f"{title} loses {drop:.2f} points of mIoU on {self._plan.split}{self._excepted()}, the limit is "
                f"{limit:g}, so no bundle was written; {advice}, or raise --max-drop."
            )
        for variant in variants:
            variant.check()
            self._variants[variant.title] = variant
        if precision == "int8":
            self._write_ranges()

    def result(self) -> TypedResult:
        """What was written and measured."""
        plan, accuracy = self._plan, None
        if plan.samples:
            accuracy = Accuracy(
                split=plan.split,
                pictures=len(plan.samples),
                subset=plan.subset,
                miou=dict(self._miou),
                drop_points={title: self._drop(title) for title in self._variants},
                max_drop=plan.max_drop,
                exceptions=tuple(sorted(self._exceptions)),
                chosen_on=self._chosen_on,
            )
        return TypedResult(self._used, self._variants, accuracy)

    def _write(self, precision: str, exclude: frozenset[str]) -> list[VariantReport]:
        """All graphs of `precision`, the one that serves every backend first."""
        assert self._ranges is not None, "there is a precision beside fp32"
        variants = []
        for form in FORMS[precision]:
            self._start(form.title)
            folder = self._bundle.path
            variants.append(write_variant(form, self._ranges, folder, reference=self._reference, exclude=exclude))
            if self._plan.samples:
                self._start(f"mIoU of {form.title}")
                graph, plan = folder / form.file, self._plan
                self._miou[form.title] = mean_iou(self._bundle, graph, plan.samples, plan.subset)
        return variants

    def _drop(self, title: str) -> float:
        return 100 * (self._miou["fp32"] - self._miou[title])

    def _worst(self, variants: list[VariantReport]) -> tuple[str, float]:
        """Title and drop, in points, of the graph that loses most."""
        return max(((variant.title, self._drop(variant.title)) for variant in variants), key=lambda each: each[1])

    def _excepted(self) -> str:
        return f" with {_shown(sorted(self._exceptions))} in float" if self._exceptions else ""

    def _with_exceptions(self, variants: list[VariantReport], limit: float) -> list[VariantReport]:
        """INT8 with the fewest layers in float that hold the limit. Raises UserError when that is too many."""
        from .precision.mixed import TooManyExceptionsError, fewest_exceptions

        manifest, head = self._bundle.manifest, head_of(self._bundle.manifest)
        if head is None or self._ranges is None:  # scores are needed to find the layers that spoil them
            return variants
        self._chosen_on = self._plan.chosen_on
        self._start(f"search layers to leave in float on {self._chosen_on}")
        layers = variants[0].int8_layers
        most = int((1 - MIN_INT8_SHARE) * len(layers))
        try:
            found = fewest_exceptions(
                self._fp32,
                self._ranges,
                self._plan.choice,
                (manifest.input.height, manifest.input.width),
                manifest.input.fit,
                head,
                max_drop=limit,
                exclude=self._plan.exclude,
                subset=class_ids(self._plan.subset, manifest.classes),
                elsewhere="fp32",
                max_exceptions=most,
            )
        except TooManyExceptionsError as error:
            title, drop = self._worst(variants)
            raise UserError(
                f"{title} loses {drop:.2f} points of mIoU on {self._plan.split}, and to hold the limit of {limit:g} it "
                f"would need more than {most} of {len(layers)} convolutions in float, worst first "
                f"{_shown(error.layers)}, so no bundle was written; collect the ranges on more pictures, take fp16, or "
                "raise --max-drop."
            ) from error
        self._exceptions = frozenset(found.exclude) - self._plan.exclude
        return self._write("int8", self._plan.exclude | self._exceptions) if self._exceptions else variants

    def _write_ranges(self) -> None:
        """ranges.json, and the same for TensorRT up to 10, without tensors that were zero: they have no step."""
        assert self._ranges is not None, "int8 has ranges"
        self._ranges.write(self._bundle.path / RANGES_FILE)
        moving = {name: each for name, each in self._ranges.tensors.items() if each.threshold > 0}
        replace_file(self._bundle.path / CACHE_FILE, write_cache(moving).encode())


def head_of(manifest: Manifest) -> BilinearHead | None:
    """The head that the runtime puts behind the scores; None when the graph gives labels."""
    return BilinearHead(manifest.head.geometry) if manifest.head.kind == "bilinear" else None


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


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
