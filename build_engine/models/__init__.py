"""Keras FCNs: FCN-32s, FCN-16s and FCN-8s heads over VGG16 and EfficientNet-Lite0.

Importing this package imports no Keras; `build_model` does, when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .names import ARCHITECTURES, Architecture

if TYPE_CHECKING:
    from .architecture import build_model

__all__ = ["ARCHITECTURES", "Architecture", "build_model"]


def __getattr__(name: str) -> Any:
    if name == "build_model":
        from .architecture import build_model

        return build_model
    raise AttributeError(name)
