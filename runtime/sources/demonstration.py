"""The demonstration as a source, without camera or download.

demo:// are photographs, demo://clip a short film, demo://camera the same film in real time and without end.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import numpy as np

from fcnedge.runtime.demo import CLIP_FPS, CLIP_SECONDS, demo_clip_frames, demo_pictures
from fcnedge.runtime.errors import SourceError

from .frame import Frame, Source


def open_demo(uri: str) -> Source:
    """What demo://… names. Raises SourceError for an unknown name, UserError when the extra `demo` is missing."""
    name = uri.partition("://")[2].rstrip("/")
    if name == "":
        return DemoPictureSource(uri)
    if name == "clip":
        return DemoClipSource(uri)
    if name == "camera":
        return DemoCameraSource(uri)
    raise SourceError(
        f"there is no demonstration {uri}; there are demo:// (photographs), demo://clip (a short film) and "
        "demo://camera (the film in real time, without end)"
    )


class DemoPictureSource(Source):
    """The demonstration photographs."""

    def __init__(self, uri: str) -> None:
        self._pictures = demo_pictures()
        sizes = {picture.image.shape for picture in self._pictures}
        super().__init__(uri, length=len(self._pictures), mixed_sizes=len(sizes) > 1)

    def __iter__(self) -> Iterator[Frame]:
        for index, picture in enumerate(self._pictures):
            yield Frame(picture.image.copy(), picture.name, index, 0.0)


class DemoClipSource(Source):
    """The demonstration clip: 480x360 pixels, four seconds."""

    def __init__(self, uri: str) -> None:
        demo_pictures()  # refused here, not at the first frame, when the photographs are missing
        super().__init__(uri, is_video=True, fps=CLIP_FPS, length=round(CLIP_SECONDS * CLIP_FPS))

    def __iter__(self) -> Iterator[Frame]:
        for index, image in enumerate(demo_clip_frames(CLIP_SECONDS, CLIP_FPS)):
            yield Frame(image, f"clip_{index:06d}", index, index / CLIP_FPS)


class DemoCameraSource(Source):
    """The demonstration clip as a camera that never ends: 480x360 pixels, 15 frames per second in real time.

    A frame that nobody asked for in its time is not delivered later, as with a real camera. `close` is for good.
    """

    def __init__(self, uri: str) -> None:
        demo_pictures()  # as above
        super().__init__(uri, live=True, is_video=True, fps=CLIP_FPS)
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        images = [np.ascontiguousarray(image) for image in demo_clip_frames(CLIP_SECONDS, CLIP_FPS)]
        started, index = time.monotonic(), 0
        for tick in itertools.count():
            late_s = time.monotonic() - started - tick / CLIP_FPS
            if late_s > 1 / CLIP_FPS:
                continue
            if self._closed.wait(max(0.0, -late_s)):
                return
            yield Frame(images[tick % len(images)].copy(), f"camera_{index:06d}", index, time.monotonic())
            index += 1

    def close(self) -> None:
        """End iteration, at once and for good."""
        self._closed.set()
