"""What the page shows of a result, as bytes: JPEG pictures for any program, and layers for the page itself.

Layers are what makes the opacity slider free: the camera's picture as JPEG and the mask as compressed class ids, of one
frame, in one message. The browser paints the ids with the palette and lays them over the picture at the opacity that
its viewer has chosen, with the classes that he left on: one encoding serves all, and the two layers never come from
two frames, as two streams of JPEGs would. Ids are small beside the JPEG (5 kB and 37 kB at 640x480, in 0.6 and 0.9 ms
on one core), have no smeared borders, and let the viewer ask which class a pixel is.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ..look import Look
from ..opencv import load_cv2
from ..overlay import blend, colorize
from ..palette import full_palette
from .board import Published

JPEG_QUALITY = 80
JPEG_KINDS = ("overlay", "raw", "mask")
KINDS = (*JPEG_KINDS, "layers")
BOUNDARY = "frame"


@dataclass(frozen=True, eq=False)
class PictureEncoder:
    """look: colours, opacity and unpainted classes to begin with; a viewer may change the latter two for himself.

    longest_side_px: larger pictures are shrunk to it, since encoding and sending 4K to a phone helps nobody.
    """

    look: Look
    longest_side_px: int = 1280

    def encoded(self, published: Published, kind: str) -> bytes:
        """The picture of one of KINDS; encoded once per result, so that the streams of several kinds share it.

        "layers": a line of JSON (number, sequence, age_ms, jpeg and ids: bytes of each), the JPEG, the ids as zlib has
        them, (H, W) uint8. Others: JPEG. Not thread-safe.
        """
        found = published.encoded.get(kind)
        if found is None:
            found = published.encoded[kind] = (
                self._layers(published) if kind == "layers" else self._jpeg(published, kind)
            )
        return found

    def _jpeg(self, published: Published, kind: str) -> bytes:
        image, mask = published.result.frame.image, published.result.segmentation.mask
        if kind == "mask":
            picture = colorize(self._shrunk_ids(mask), full_palette(self.look.palette))
        elif kind == "raw":
            picture = self._shrunk(image)
        else:
            picture = self._overlay(published)
        cv2 = load_cv2()
        _, data = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
        return data.tobytes()

    def _overlay(self, published: Published) -> np.ndarray:
        segmentation = published.result.segmentation
        given = published.overlay if published.overlay is not None else segmentation.overlay
        if given is not None:
            return self._shrunk(given)
        image, mask = self._shrunk(published.result.frame.image), self._shrunk_ids(segmentation.mask)
        return blend(image, mask, full_palette(self.look.palette), alpha=self.look.alpha, ignore=self.look.ignore)

    def _layers(self, published: Published) -> bytes:
        result = published.result
        jpeg = self.encoded(published, "raw")
        mask = self._shrunk_ids(result.segmentation.mask)
        ids = zlib.compress(mask.tobytes(), 1)
        words = {
            "number": published.number,
            "sequence": result.sequence,
            "age_ms": round(result.age_ms, 1),
            "width": mask.shape[1],
            "height": mask.shape[0],
            "jpeg": len(jpeg),
            "ids": len(ids),
        }
        return json.dumps(words).encode() + b"\n" + jpeg + ids

    def _shrunk(self, image: np.ndarray) -> np.ndarray:
        cv2 = load_cv2()
        size = self._size(image)
        return image if size is None else cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    def _shrunk_ids(self, mask: np.ndarray) -> np.ndarray:
        cv2 = load_cv2()
        size = self._size(mask)
        return mask if size is None else cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)

    def _size(self, picture: np.ndarray) -> tuple[int, int] | None:
        height, width = picture.shape[:2]
        if max(height, width) <= self.longest_side_px:
            return None
        scale = self.longest_side_px / max(height, width)
        return max(1, round(width * scale)), max(1, round(height * scale))


def hex_colours(palette: np.ndarray, classes: Collection[str]) -> list[str]:
    """`#rrggbb` of each class."""
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in full_palette(palette)[: len(classes)].tolist()]


def multipart(jpeg: bytes) -> bytes:
    """One part of multipart/x-mixed-replace, with the boundary after it: most readers take a part at its end.

    An <img> in Chromium shows a part only when the next one begins (seen in Chromium 150), so it is a picture behind.
    The live page itself reads layers, which are shown at once.
    """
    return b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n--%b\r\n" % (
        len(jpeg),
        jpeg,
        BOUNDARY.encode(),
    )
