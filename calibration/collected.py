"""What a pass over the pictures has seen so far: one histogram per activation, on disk between two runs.

All threshold methods read the same histograms, so one pass is enough to compare them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import platform
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fcnedge.runtime.errors import UserError

from .fingerprint import GraphFingerprint
from .histogram import BINS, Histogram
from .ranges import Ranges, TensorRange, replace_file
from .thresholds import DEFAULT_PERCENTILE, threshold

_FORMAT = 1
_MODULES = ("numpy", "onnx_ir", "onnxruntime", "cv2")


@dataclass(frozen=True)
class Identity:
    """What a collection belongs to: pictures, preprocessing and graph, as in Ranges."""

    list_sha256: str
    preprocessing_sha256: str
    graph: GraphFingerprint

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each, under the name a user knows it by."""
        # rounded: the last digits of a sum depend on NumPy's version
        weights = [f"{name} {each.magnitude:.4g} {each.projection:.3f}" for name, each in self.graph.weights.items()]
        graph = "\n".join([self.graph.structure, *sorted(weights)])
        return {
            "pictures": self.list_sha256,
            "preprocessing": self.preprocessing_sha256,
            "graph": hashlib.sha256(graph.encode()).hexdigest(),
        }


@dataclass(frozen=True)
class Collected:
    """visited: pictures of the list that were looked at, in its order; skipped: names of those that were unreadable."""

    identity: Identity
    visited: int
    skipped: tuple[str, ...]
    histograms: dict[str, Histogram]

    def ranges(self, method: str, percentile: float = DEFAULT_PERCENTILE) -> Ranges:
        """Clip every activation by `method`, one of thresholds.METHODS; percentile in (0, 100]."""
        return Ranges(
            method=method,
            percentile=percentile if method == "percentile" else None,
            images=self.visited - len(self.skipped),
            skipped=self.skipped,
            list_sha256=self.identity.list_sha256,
            preprocessing_sha256=self.identity.preprocessing_sha256,
            graph=self.identity.graph,
            tensors={
                name: TensorRange(histogram.minimum, histogram.maximum, threshold(histogram, method, percentile))
                for name, histogram in self.histograms.items()
            },
            versions=_versions(),
        )

    def save(self, path: Path) -> None:
        """Write an .npz file whole or not at all. Raises UserError when that fails."""
        header = {
            "format": _FORMAT,
            "belongs_to": self.identity.hashes(),
            "visited": self.visited,
            "skipped": self.skipped,
            "names": list(self.histograms),
        }
        histograms = self.histograms.values()
        buffer = io.BytesIO()
        np.savez(
            buffer,
            header=np.frombuffer(json.dumps(header).encode(), np.uint8),
            counts=np.array([each.counts for each in histograms], np.int64).reshape(-1, BINS),
            exponents=np.array([each.exponent for each in histograms], np.int64),
            extremes=np.array([(each.minimum, each.maximum) for each in histograms], np.float64).reshape(-1, 2),
        )
        replace_file(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path, identity: Identity) -> Collected:
        """Read what `save` wrote. Raises UserError when it is damaged or belongs to something else than `identity`."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                header = json.loads(data["header"].tobytes())
                counts, exponents, extremes = data["counts"], data["exponents"], data["extremes"]
            names, visited, skipped = list(header["names"]), int(header["visited"]), tuple(header["skipped"])
            known, belongs_to = header["format"] == _FORMAT, dict(header["belongs_to"])
            shapes = counts.shape, exponents.shape, extremes.shape
            if shapes != ((len(names), BINS), (len(names),), (len(names), 2)) or counts.dtype != np.int64:
                raise ValueError(f"arrays of {shapes}")
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} is no collection of ranges that can be continued ({error}); delete it, or add --restart to "
                "start again."
            ) from None
        _check_belongs(path, known, belongs_to, identity.hashes(), visited)
        rows = zip(names, counts, exponents, extremes, strict=True)
        histograms = {
            name: Histogram(count, int(exponent), float(low), float(high))
            for name, count, exponent, (low, high) in rows
        }
        return cls(identity, visited, skipped, histograms)


def _check_belongs(path: Path, known: bool, got: dict[str, str], expected: dict[str, str], visited: int) -> None:
    differ = [name for name, digest in expected.items() if got.get(name) != digest] if known else ["version of fcnedge"]
    if differ:
        raise UserError(
            f"{path} holds {visited} pictures' ranges that belong to another {' and '.join(differ)}; delete it, or add "
            "--restart to start again."
        )


def _versions() -> dict[str, str]:
    owners = importlib.metadata.packages_distributions()
    versions = {"fcnedge": importlib.metadata.version("fcnedge"), "python": platform.python_version()}
    for module in _MODULES:
        for distribution in owners.get(module, [])[:1]:  # cv2 comes from opencv-python or its headless sister
            versions[distribution] = importlib.metadata.version(distribution)
    return versions
