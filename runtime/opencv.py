"""OpenCV, imported when first needed: a device that only asks for masks never loads it."""

from __future__ import annotations

import os
from types import ModuleType

from .errors import UserError, missing_package


def load_cv2() -> ModuleType:
    """The module cv2. Raises UserError naming the extra when it is not installed, or why it does not load."""
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise missing_package("opencv-python", extra="gui") from error
    except ImportError as error:
        raise UserError(
            f"OpenCV is installed but does not load ({str(error).splitlines()[0]}); on a machine without display use "
            "opencv-python-headless instead of opencv-python."
        ) from error
    return cv2


def quiet_opencv() -> None:
    """For a program that is the process's own: OpenCV keeps its messages, and its threads, to itself. Before it loads.

    What OpenCV and its FFmpeg would print comes again in our own sentence. Reading, drawing and writing have threads of
    their own; more of OpenCV's would take cores from the network. Settings of the environment win.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
