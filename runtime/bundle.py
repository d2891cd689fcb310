"""A bundle on disk: verified as a whole before any of its files is parsed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from .errors import BundleError
from .manifest import MAX_JSON_BYTES, FileSpec, Manifest
from .onnx_locations import external_locations

MANIFEST_NAME = "model.json"
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """A folder whose every listed file has the size and hash that model.json gives."""

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: Path | str) -> Bundle:
        """Read and verify the bundle in folder `path`.

        Raises BundleError, one sentence, for a folder without model.json, a manifest that is not exactly right, a
        file that is missing, outside the folder, of another size or with another hash, and a graph that reads a file
        that model.json does not list.
        """
        folder = Path(path)
        manifest = Manifest.parse(_read_manifest(folder))
        for name in manifest.files:
            _verify(folder, name, manifest)
        for name in manifest.files:
            if name.endswith(".onnx"):
                _verify_locations(folder, name, manifest)
        return cls(folder, manifest)

    def model(self, precision: str = "auto", target: str | None = None) -> Path:
        """Path of the ONNX graph in that precision; "auto" takes the most exact one.

        target: one of GRAPH_TARGETS takes the graph that was written for it, and where there is none, as None does,
        the one that serves every backend. Raises BundleError that lists what the bundle holds when it has none.
        """
        held = self.manifest.precisions
        if precision == "auto" and held:
            precision = held[0]
        graphs = {
            spec.target: name
            for name, spec in self.manifest.files.items()
            if name.endswith(".onnx") and spec.precision == precision
        }
        for wanted in (target, None):
            if wanted in graphs:
                return self.path / graphs[wanted]
        if not held:
            raise BundleError(f"{self.path} holds no graph that runs anywhere; rebuild it with fcn-build.")
        raise BundleError(
            f"{self.path} holds no {precision} graph, only {' and '.join(held)}; choose precision {held[0]} or auto."
        )

    def graph_files(self, graph: Path) -> dict[str, FileSpec]:
        """A graph, as `model` returned it, and the file that holds its weights where there is one, by name."""
        asked = self.manifest.files[graph.relative_to(self.path).as_posix()]
        return {
            name: spec
            for name, spec in self.manifest.files.items()
            if (spec.precision, spec.target) == (asked.precision, asked.target)
        }


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces of 1 MB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST_NAME
    try:
        if not folder.is_dir():
            raise BundleError(
                f"there is no bundle at {folder}; build one with: fcn-build model fcn8s-lite0-voc -o {folder}"
            )
        if not path.is_file():
            raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST_NAME}; build one with fcn-build model.")
        _refuse_leaving(folder, path)
        with path.open("rb") as file:
            return file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


def _verify(folder: Path, name: str, manifest: Manifest) -> None:
    path, expected = folder / name, manifest.files[name]
    try:
        _refuse_leaving(folder, path)
        size = path.stat().st_size
        if size != expected.bytes:
            raise BundleError(f"{path} has {size} bytes where model.json says {expected.bytes}; copy the bundle again.")
        found = sha256_of(path)
    except FileNotFoundError:
        raise BundleError(f"{path} is missing, model.json lists it; copy the bundle again.") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    if found != expected.sha256:
        raise BundleError(
            f"{path} was changed after the build: its SHA-256 starts {found[:12]}, model.json says "
            f"{expected.sha256[:12]}; rebuild the bundle or copy it again."
        )


def _verify_locations(folder: Path, name: str, manifest: Manifest) -> None:
    """Every file that the graph reads must be listed, and so verified; names are relative to the graph's folder."""
    path = folder / name
    try:
        locations = external_locations(path)
    except ValueError as error:
        raise BundleError(f"{path} is not an ONNX graph ({error}); rebuild the bundle.") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    beside = name[: name.rfind("/") + 1]
    for location in sorted(locations):
        if beside + location not in manifest.files:
            raise BundleError(
                f"{path} reads the file {location!a}, which model.json does not list; it is refused: "
                "rebuild the bundle."
            )


def _refuse_leaving(folder: Path, path: Path) -> None:
    """Follow links strictly: what `path` stands for must be a file in `folder`. Raises OSError as the system does."""
    try:
        inside = path.resolve(strict=True).is_relative_to(folder.resolve())
    except RuntimeError:  # links that lead in a circle, before Python 3.13
        inside = False
    if not inside or not path.is_file():
        raise BundleError(f"{path} leads out of the bundle or is not a file; it is refused.")
