"""The demonstration as a source: demo:// (photographs) and demo://clip (a short film), without camera or download."""

from __future__ import annotations

from collections.abc import Iterator

from fcnedge.runtime.demo import CLIP_FPS, CLIP_SECONDS, demo_clip_frames, demo_pictures
from fcnedge.runtime.errors import SourceError

from .frame import Frame, Source


def open_demo(uri: str) -> Source:
    """demo:// or demo://clip. Raises SourceError for another name, UserError when the extra `demo` is missing."""
    name = uri.partition("://")[2].rstrip("/")
    if name == "":
        return DemoPictureSource(uri)
    if name == "clip":
        return DemoClipSource(uri)
    raise SourceError(
        f"there is no demonstration {uri}; there are demo:// (photographs) and demo://clip (a short film)"
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
