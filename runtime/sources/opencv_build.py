"""What this OpenCV was built with: pip's has FFmpeg and no GStreamer, JetPack's and Debian's have both."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.opencv import load_cv2


@cache
def opencv_has(library: str) -> bool:
    """Whether OpenCV's build information says YES to "GStreamer" or "FFMPEG"."""
    return bool(re.search(rf"^\s*{library}:\s*YES", load_cv2().getBuildInformation(), re.MULTILINE))


@cache
def on_jetson() -> bool:
    """Whether this is a Jetson: its kernel, or JetPack, says so."""
    compatible = Path("/proc/device-tree/compatible")
    named = compatible.read_bytes() if compatible.is_file() else b""
    return b"nvidia,tegra" in named or Path("/etc/nv_tegra_release").is_file()


def require_gstreamer(what: str) -> None:
    """Raise SourceError unless OpenCV can run a GStreamer pipeline; `what` needs it."""
    if opencv_has("GStreamer"):
        return
    version = load_cv2().__version__
    raise SourceError(
        f"{what} needs an OpenCV with GStreamer, and OpenCV {version} here was built without (pip's never has it); "
        "uninstall opencv-python and use the system's, JetPack's or Debian's python3-opencv, in a virtual environment "
        "made with --system-site-packages"
    )
