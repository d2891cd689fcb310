"""A bundle as a table: what it holds, how big, how exact, and what the fusions did."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcnedge.runtime import Bundle
from fcnedge.runtime.command import table

_SHOWN_LAYERS = 3


@dataclass(frozen=True)
class BundleFile:
    """One line of the file table. nodes: of a graph, None for other files."""

    name: str
    precision: str | None
    bytes: int
    sha256: str
    nodes: int | None


@dataclass(frozen=True)
class BundleDescription:
    """Everything `fcn-build inspect` shows; report is report.json as it was written, empty when there is none."""

    path: str
    name: str
    arch: str
    classes: tuple[str, ...]
    size: str
    fit: str
    head: str
    files: tuple[BundleFile, ...]
    versions: dict[str, str]
    report: dict[str, Any]

    def text(self) -> str:
        """The description as text tables."""
        facts = [
            ("bundle", f"{self.path} (verified: sizes and hashes agree)"),
            ("model", f"{self.name} ({self.arch}), {len(self.classes)} classes"),
            ("input", f"{self.size}, {self.fit}, uint8 BGR"),
            ("head", self.head),
            ("built with", ", ".join(f"{name} {version}" for name, version in self.versions.items())),
        ]
        rows = [
            (file.name, file.precision or "", file.bytes, "" if file.nodes is None else file.nodes, file.sha256[:16])
            for file in self.files
        ]
        parts = [table(facts), table(rows, ("file", "precision", "bytes", "nodes", "sha256"))]
        return "\n\n".join([*parts, *self._report_parts()])

    def _report_parts(self) -> list[str]:
        agreement, fusion = self.report.get("agreement"), self.report.get("fusion")
        parts = []
        if isinstance(agreement, dict):
            title = f"agreement with {self.report.get('compared_with', 'Keras')}"
            parts.append(table([(key, value) for key, value in agreement.items()], (title, "")))
        if self.report.get("precisions") or self.report.get("accuracy"):
            parts += [precision_table(self.report), *_float_layers(self.report)]
        if isinstance(fusion, dict) and isinstance(fusion.get("rules"), dict):
            rules = fusion["rules"].items()
            parts.append(table([(name, rule["applied"]) for name, rule in rules], ("fusion", "applied")))
            refused = [(name, item["node"], item["reason"]) for name, rule in rules for item in rule["refused"]]
            if refused:
                parts.append(table(refused, ("refused by", "at", "because")))
        return parts


def precision_table(report: dict[str, Any]) -> str:
    """A line per precision, from report.json's data: size, agreement with FP32, and mIoU where it was measured."""
    accuracy = report.get("accuracy") or {}
    miou, drop = accuracy.get("miou", {}), accuracy.get("drop_points", {})
    rows = [("fp32", report["fp32_bytes"] / 1e6, "", "", "", *_measured(miou.get("fp32")), "")]
    for name, each in report["precisions"].items():
        share, equal = f"{each['share_of_fp32']:.1%}", f"{each['labels_equal']:.2%}"
        sqnr = "" if each["score_sqnr_db"] is None else f"{each['score_sqnr_db']:.1f}"
        rows.append(
            (name, each["bytes"] / 1e6, share, equal, sqnr, *_measured(miou.get(name)), *_measured(drop.get(name), 1))
        )
    header = ("precision", "MB", "of fp32", "labels equal", "SQNR dB", "mIoU %", "drop")
    columns = len(header) if accuracy else header.index("mIoU %")
    lines = [table([row[:columns] for row in rows], header[:columns])]
    ranges = report.get("ranges")
    if ranges:
        lines.append(f"ranges: {ranges['origin']}, {ranges['method']} of {ranges['images']} pictures")
    if accuracy:
        over = ", ".join(accuracy.get("subset") or ("all classes that occur",))
        lines.append(f"mIoU: {accuracy['split']}, {accuracy['pictures']} pictures at their own size, {over}")
    if accuracy.get("exceptions"):
        lines.append(
            f"left in float to hold --max-drop {accuracy['max_drop']:g}, chosen on {accuracy.get('chosen_on')}: "
            f"{', '.join(accuracy['exceptions'])}"
        )
    return "\n".join(lines)


def _measured(value: float | None, factor: int = 100) -> tuple[str]:
    return ("" if value is None else f"{factor * value:.2f}",)


def _float_layers(report: dict[str, Any]) -> list[str]:
    """Tables of the layers that a precision leaves in float, one line per reason."""
    parts = []
    for name, each in report["precisions"].items():
        for kind, title in (("float_layers", f"not in {name}"), ("float32_layers", f"{name}: in float32")):
            nodes: dict[str, list[str]] = {}
            for layer in each[kind]:
                nodes.setdefault(layer["reason"], []).append(layer["node"])
            if nodes:
                rows = [(_named(layers), reason) for reason, layers in nodes.items()]
                parts.append(table(rows, (title, "because")))
    return parts


def _named(layers: list[str]) -> str:
    more = len(layers) - _SHOWN_LAYERS
    return ", ".join(layers[:_SHOWN_LAYERS]) + (f" and {more} more" if more > 0 else "")


def describe_bundle(path: Path) -> BundleDescription:
    """Load, verify and describe the bundle at `path`. Raises BundleError."""
    bundle = Bundle.load(path)
    manifest = bundle.manifest
    head = manifest.head
    return BundleDescription(
        path=str(path),
        name=manifest.name,
        arch=manifest.arch,
        classes=manifest.classes,
        size=f"{manifest.input.width}x{manifest.input.height}",
        fit=manifest.input.fit,
        head=f"bilinear, stride {head.stride}" if head.kind == "bilinear" else "labels in the graph",
        files=tuple(
            BundleFile(name, spec.precision, spec.bytes, spec.sha256, _nodes(path / name))
            for name, spec in manifest.files.items()
        ),
        versions=manifest.versions,
        report=_report(bundle),
    )


def _nodes(path: Path) -> int | None:
    """Number of nodes of an ONNX graph; None for other files and where onnx-ir is not installed."""
    if path.suffix != ".onnx":
        return None
    try:
        import onnx_ir
    except ImportError:
        return None
    return len(onnx_ir.load(path).graph)


def _report(bundle: Bundle) -> dict[str, Any]:
    if "report.json" not in bundle.manifest.files:
        return {}
    data = json.loads((bundle.path / "report.json").read_text(encoding="utf-8"))
    return data if isinstance(data, dict) else {}
