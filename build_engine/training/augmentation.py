"""Training augmentation: random scale, aspect, crop, flip and colour, applied alike to picture and mask."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fcnedge.calibration.voc import VOID
from fcnedge.runtime.preprocessing import LETTERBOX_FILL

_GREY_WEIGHTS_BGR = np.array([0.114, 0.587, 0.299], np.float32)  # ITU-R BT.601 luma


@dataclass(frozen=True)
class Augmentation:
    """How a training picture is varied. Scales are relative to a picture whose longer side is `size_px`."""

    size_px: int
    crop_px: int
    min_scale: float = 0.5
    max_scale: float = 1.5
    aspect: float = 1.3
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.4
    grey_probability: float = 0.05

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """image (H, W, 3) uint8 BGR, mask (H, W) uint8 → (crop, crop, 3) uint8 and (crop, crop) uint8.

        What lies outside the picture is grey in the image and void in the mask.
        """
        image, mask = self._resize(image, mask, random)
        image, mask = self._crop(image, mask, random)
        if random.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        return self._colour(image, random), mask

    def _resize(self, image, mask, random):
        scale = np.exp(random.uniform(np.log(self.min_scale), np.log(self.max_scale)))
        scale *= self.size_px / max(mask.shape)
        stretch = np.exp(random.uniform(-1, 1) * np.log(self.aspect) / 2)
        height = max(1, round(mask.shape[0] * scale * stretch))
        width = max(1, round(mask.shape[1] * scale / stretch))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        # EXACT takes pixel centres as INTER_LINEAR does; INTER_NEAREST would shift the mask by half a pixel
        return image, cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)

    def _crop(self, image, mask, random):
        crop = self.crop_px
        top = _window_start(mask.shape[0], crop, random)
        left = _window_start(mask.shape[1], crop, random)
        out_image = np.full((crop, crop, 3), LETTERBOX_FILL, np.uint8)
        out_mask = np.full((crop, crop), VOID, np.uint8)
        source = np.s_[max(top, 0) : top + crop, max(left, 0) : left + crop]
        height, width = mask[source].shape
        target = np.s_[max(-top, 0) : max(-top, 0) + height, max(-left, 0) : max(-left, 0) + width]
        out_image[target], out_mask[target] = image[source], mask[source]
        return out_image, out_mask

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


def _window_start(length: int, crop: int, random: np.random.Generator) -> int:
    """First row of a random window; negative when the picture is smaller than the window (it lies inside, then)."""
    slack = length - crop
    return int(random.integers(min(slack, 0), max(slack, 0) + 1))
