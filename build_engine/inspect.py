"""A bundle as a table: what it holds, how big, how exact, and what the fusions did."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcnedge.runtime import Bundle
from fcnedge.runtime.command import table


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
            parts.append(table([(key, value) for key, value in agreement.items()], ("agreement with Keras", "")))
        if isinstance(fusion, dict) and isinstance(fusion.get("rules"), dict):
            rules = fusion["rules"].items()
            parts.append(table([(name, rule["applied"]) for name, rule in rules], ("fusion", "applied")))
            refused = [(name, item["node"], item["reason"]) for name, rule in rules for item in rule["refused"]]
            if refused:
                parts.append(table(refused, ("refused by", "at", "because")))
        return parts


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
