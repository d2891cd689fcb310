"""A bundle on disk: verified as a whole before any of its files is parsed."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from .errors import BundleError
from .manifest import MAX_JSON_BYTES, Manifest

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

        Raises BundleError, one sentence, for a folder without model.json, a manifest that is not exactly right, and a
        file that is missing, outside the folder, of another size or with another hash.
        """
        folder = Path(path)
        manifest = Manifest.parse(_read_manifest(folder))
        for name in manifest.files:
            _verify(folder, name, manifest)
        return cls(folder, manifest)

    def model(self, precision: str = "auto") -> Path:
        """Path of the ONNX graph in that precision; "auto" takes the most exact one.

        Raises BundleError that lists what the bundle holds when it has no such graph.
        """
        held = self.manifest.precisions
        if precision == "auto" and held:
            precision = held[0]
        for name, spec in self.manifest.files.items():
            if name.endswith(".onnx") and spec.precision == precision:
                return self.path / name
        raise BundleError(
            f"{self.path} holds no {precision} graph, only {', '.join(held) or 'none'}; build it with "
            f"fcn-build model --precision {precision}."
        )


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces of 1 MB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST_NAME
    if not folder.is_dir():
        raise BundleError(
            f"there is no bundle at {folder}; build one with: fcn-build model fcn8s-lite0-voc -o {folder}"
        )
    if not path.is_file():
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST_NAME}; build one with fcn-build model.")
    try:
        with path.open("rb") as file:
            return file.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


def _verify(folder: Path, name: str, manifest: Manifest) -> None:
    path, expected = folder / name, manifest.files[name]
    try:
        inside = path.resolve(strict=True).is_relative_to(folder.resolve())
        if not inside or not path.is_file():
            raise BundleError(f"{path} leads out of the bundle or is not a file; it is refused.")
        size = os.stat(path).st_size
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
