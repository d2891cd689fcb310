"""Training augmentation: random window, aspect, flip and colour, applied alike to picture and mask."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fcnedge.calibration.voc import VOID
from fcnedge.runtime.preprocessing import LETTERBOX_FILL

_GREY_WEIGHTS_BGR = np.array([0.114, 0.587, 0.299], np.float32)  # ITU-R BT.601 luma


@dataclass(frozen=True)
class Augmentation:
    """How a training picture is varied: a random window of it, brought to crop_px x crop_px as a frame is deployed.

    fit: "stretch" or "letterbox", as in InputSpec. min_zoom, max_zoom: a window of zoom z has 1/z of the frame's
    sides; below 1 it reaches beyond the picture. aspect: the ratio of the window's sides changes by up to this factor.
    deployed_aspect: width / height of the network's input; the crop is square, so the window takes the shape, at the
    same area, that gives things the proportions they have there.
    """

    crop_px: int
    fit: str = "stretch"
    min_zoom: float = 0.9
    max_zoom: float = 2.0
    aspect: float = 1.33
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.4
    grey_probability: float = 0.05
    deployed_aspect: float = 1.0

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """image (H, W, 3) uint8 BGR, mask (H, W) uint8 → (crop, crop, 3) uint8 and (crop, crop) uint8.

        What lies outside the picture is grey in the image and void in the mask.
        """
        height, width = self._window_size(mask.shape, random)
        top, left = _window_start(mask.shape[0], height, random), _window_start(mask.shape[1], width, random)
        size = (self.crop_px, self.crop_px)
        image = cv2.resize(_window(image, top, left, height, width, LETTERBOX_FILL), size)
        # EXACT takes pixel centres as INTER_LINEAR does; INTER_NEAREST would shift the mask by half a pixel
        mask = cv2.resize(_window(mask, top, left, height, width, VOID), size, interpolation=cv2.INTER_NEAREST_EXACT)
        if random.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        return self._colour(image, random), mask

    def _window_size(self, picture: tuple[int, ...], random: np.random.Generator) -> tuple[int, int]:
        height, width = picture
        if self.fit == "letterbox":  # the frame is the picture with its free border
            height = max(height, width / self.deployed_aspect)
            width = height * self.deployed_aspect
        zoom = np.exp(random.uniform(np.log(self.min_zoom), np.log(self.max_zoom)))
        stretch = np.exp(random.uniform(-1, 1) * np.log(self.aspect) / 2)
        stretch *= np.sqrt(self.deployed_aspect)
        return max(1, round(height / zoom * stretch)), max(1, round(width / zoom / stretch))

    def _colour(self, image, random):
        pixels = image.astype(np.float32)
        grey = (pixels @ _GREY_WEIGHTS_BGR)[..., None]
        saturation = 1 + random.uniform(-1, 1) * self.saturation
        if random.random() < self.grey_probability:
            saturation = 0.0
        pixels = grey + (pixels - grey) * saturation
        mean = pixels.mean()
        pixels = mean + (pixels - mean) * (1 + random.uniform(-1, 1) * self.contrast)
        pixels *= 1 + random.uniform(-1, 1) * self.brightness
        return np.clip(pixels, 0, 255).astype(np.uint8)


def _window(array: np.ndarray, top: int, left: int, height: int, width: int, fill: int) -> np.ndarray:
    """array[top : top + height, left : left + width], `fill` where that lies outside."""
    inside = array[max(top, 0) : top + height, max(left, 0) : left + width]
    if inside.shape[:2] == (height, width):
        return inside
    window = np.full((height, width, *array.shape[2:]), fill, np.uint8)
    window[max(-top, 0) :, max(-left, 0) :][: inside.shape[0], : inside.shape[1]] = inside
    return window


def _window_start(length: int, crop: int, random: np.random.Generator) -> int:
    """First row of a random window; negative when the picture is smaller than the window (it lies inside, then)."""
    slack = length - crop
    return int(random.integers(min(slack, 0), max(slack, 0) + 1))
