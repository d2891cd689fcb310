"""The Keras model that a bundle was built from, which peers start from as a user would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcnedge.build_engine.importers.origin import ImportFlags
from fcnedge.build_engine.model_source import ModelSource, keras_model, resolve_source
from fcnedge.runtime import Manifest
from fcnedge.runtime.errors import UserError, missing_package
from fcnedge.runtime.preprocessing import Preprocessing


@dataclass(frozen=True)
class Original:
    """model: as `fcn-build model` takes it. size: (height, width). It travels to child processes."""

    model: str
    weights: Path | None
    classes: tuple[str, ...]
    size: tuple[int, int]
    fit: str
    fc_channels: int

    @classmethod
    def of(cls, manifest: Manifest, model: str | None, weights: Path | None, fc_channels: int) -> Original:
        """What the bundle's model.json and the command line say. Raises UserError when that is no Keras model.

        model: None takes the bundle's name, which is that of a shipped model or of an architecture, unless renamed.
        """
        words = model or manifest.name
        size = (manifest.input.height, manifest.input.width)
        original = cls(words, weights and weights.resolve(), manifest.classes, size, manifest.input.fit, fc_channels)
        try:
            source = original.source()
        except UserError as error:
            raise UserError(
                f"what the bundle was built from is not known ({str(error).removesuffix('.')}); peers start from the "
                "Keras model: name it with --original, and its weights with --weights."
            ) from error
        if source.origin is None and source.weights is None:
            raise UserError(f"{words} is an architecture without weights; name the bundle's own with --weights.")
        if source.origin is not None and source.origin.kind == "onnx":
            raise UserError(f"{words} is an ONNX file and no Keras model; name that with --original.")
        return original

    def source(self) -> ModelSource:
        """As `fcn-build model` resolves it; Keras is not loaded yet. Raises UserError."""
        source = resolve_source(self.model, weights=self.weights, size=self.size, fit=self.fit, imports=ImportFlags())
        if len(source.classes) != len(self.classes):
            raise UserError(f"{self.model} scores {len(source.classes)} classes, the bundle {len(self.classes)}")
        return source

    def load(self) -> tuple[Any, Preprocessing]:
        """The Keras model at the network's size, and its preprocessing. Raises UserError."""
        try:
            import tensorflow  # noqa: F401 - Keras runs on it, and would name no command
        except ImportError as error:
            raise missing_package("tensorflow", extra="build") from error
        return keras_model(self.source(), fc_channels=self.fc_channels, fixed_size=True)
