"""Demonstration pictures: photographs that ship inside scikit-image and Matplotlib, and a clip rendered from them.

Nothing is downloaded and nothing is redistributed: the files are read where those packages installed them. Their
functions (`skimage.data.astronaut`, `matplotlib.cbook.get_sample_data`) are not called, because skimage's fall back to
a download when a distribution left the file out.

| picture      | VOC classes | licence, and who says so                                                          |
|--------------|-------------|-----------------------------------------------------------------------------------|
| astronaut    | person      | public domain, NASA: docstring of `skimage.data.astronaut`                        |
| chelsea      | cat         | CC0, Stefan van der Walt: docstring of `skimage.data.chelsea`                     |
| camera       | person      | CC0, Lav Varshney: docstring of `skimage.data.camera` (grey; this file since 0.18) |
| grace_hopper | person      | public domain: the pull request that added it, matplotlib/matplotlib#1599         |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .errors import SourceError, missing_package
from .opencv import load_cv2

CLIP_FPS = 15.0
CLIP_SECONDS = 4.0


@dataclass(frozen=True, eq=False)
class DemoPicture:
    """One photograph. image: (H, W, 3) uint8 BGR; classes: the VOC classes on it; credit: who made it, what licence."""

    name: str
    image: np.ndarray
    classes: tuple[str, ...]
    credit: str


@dataclass(frozen=True)
class _Shot:
    """A photograph, and the camera's move over it: centre (x, y) and width of view at both ends, as fractions of it."""

    name: str
    package: str
    distribution: str
    path: str
    classes: tuple[str, ...]
    credit: str
    start: tuple[float, float, float]
    end: tuple[float, float, float]


# fmt: off
_SHOTS = (
    _Shot("astronaut", "skimage", "scikit-image", "data/astronaut.png", ("person",),
          "Eileen Collins, NASA, public domain", (0.52, 0.375, 0.94), (0.45, 0.32, 0.76)),
    _Shot("chelsea", "skimage", "scikit-image", "data/chelsea.png", ("cat",),
          "Chelsea the cat, Stefan van der Walt, CC0", (0.44, 0.50, 0.82), (0.52, 0.50, 1.0)),
    _Shot("camera", "skimage", "scikit-image", "data/camera.png", ("person",),
          "Photographer, Lav Varshney, CC0", (0.42, 0.42, 0.74), (0.48, 0.46, 0.94)),
    _Shot("grace_hopper", "matplotlib", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", ("person",),
          "Grace Hopper, public domain", (0.50, 0.34, 1.0), (0.50, 0.28, 0.82)),
)
# fmt: on


def demo_pictures() -> list[DemoPicture]:
    """The photographs, always in the same order.

    Raises UserError naming the extra `demo` when scikit-image, Matplotlib or OpenCV is not installed, SourceError when
    a package is there without its picture (some Linux distributions strip sample data).
    """
    return [DemoPicture(shot.name, _read(shot), shot.classes, shot.credit) for shot in _SHOTS]


def demo_clip_frames(
    seconds: float = CLIP_SECONDS, fps: float = CLIP_FPS, size: tuple[int, int] = (480, 360)
) -> Iterator[np.ndarray]:
    """A clip: the camera pans and zooms over each photograph in turn, with a cut between them.

    seconds: length of the whole clip; fps: frames per second; size: (width, height) in pixels.
    Yields round(seconds * fps) frames, (H, W, 3) uint8 BGR; the same frames on every call. Raises as demo_pictures.
    """
    count = round(seconds * fps)
    images = [_read(shot) for shot in _SHOTS]
    bounds = [round(count * i / len(_SHOTS)) for i in range(len(_SHOTS) + 1)]
    for shot, image, first, last in zip(_SHOTS, images, bounds[:-1], bounds[1:], strict=True):
        for index in range(first, last):
            yield _view(image, shot, (index - first) / max(1, last - first - 1), size)


def _view(image: np.ndarray, shot: _Shot, progress: float, size: tuple[int, int]) -> np.ndarray:
    """What the moving camera sees of the photograph at `progress` 0..1; it starts and stops gently."""
    cv2 = load_cv2()
    eased = progress * progress * (3 - 2 * progress)
    x, y, share = (a + (b - a) * eased for a, b in zip(shot.start, shot.end, strict=True))
    height, width = image.shape[:2]
    largest = min(width, height * size[0] / size[1])  # the widest view of the clip's shape inside the photograph
    view_w = largest * share
    view_h = view_w * size[1] / size[0]
    left = min(max(x * width - view_w / 2, 0), width - view_w)
    top = min(max(y * height - view_h / 2, 0), height - view_h)
    zoom = view_w / size[0]
    # Pixel centres lie at +0.5, so that the view neither creeps nor shows a border while it zooms.
    to_photograph = np.array([[zoom, 0, left + zoom / 2 - 0.5], [0, zoom, top + zoom / 2 - 0.5]], np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, to_photograph, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _read(shot: _Shot) -> np.ndarray:
    cv2 = load_cv2()
    spec = find_spec(shot.package)
    if spec is None or not spec.submodule_search_locations:
        raise missing_package(shot.distribution, extra="demo")
    path = Path(spec.submodule_search_locations[0]) / shot.path
    data = np.fromfile(path, np.uint8) if path.is_file() else np.empty(0, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise SourceError(f"{shot.distribution} is installed without its picture {path}; install it with pip instead")
    return image
