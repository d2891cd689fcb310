"""OpenCV, imported when first needed: a device that only asks for masks never loads it."""

from __future__ import annotations

from types import ModuleType

from .errors import missing_package


def load_cv2() -> ModuleType:
    """The module cv2. Raises UserError naming the extra when it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise missing_package("opencv-python", extra="gui") from error
    return cv2
