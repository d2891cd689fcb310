"""Copy-paste augmentation: the objects of one training picture are put on another.

Source: Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", CVPR 2021
(https://arxiv.org/abs/2012.07177), for classes instead of instances. They found that edges need no blending.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from fcnedge.calibration.voc import VOID, VocSample

BACKGROUND = 0
SMALLEST_SHARE, LARGEST_SHARE = 0.005, 0.6
"""Of the pixels: smaller objects are hardly seen, larger ones would hide the picture they are put on."""


class ObjectSource:
    """The training pictures by the classes in them, so that rare classes are pasted as often as frequent ones."""

    def __init__(self, samples: Sequence[VocSample]):
        """Reads every mask once. Raises UserError for one that is damaged."""
        shown: dict[int, list[VocSample]] = {}
        for sample in samples:
            for class_id in np.unique(sample.read_mask()).tolist():
                if class_id not in (BACKGROUND, VOID):
                    shown.setdefault(class_id, []).append(sample)
        self._shown = [shown[class_id] for class_id in sorted(shown)]

    def draw(self, random: np.random.Generator) -> VocSample | None:
        """A picture that shows a class drawn evenly from all there are; None where all is background."""
        if not self._shown:
            return None
        pictures = self._shown[random.integers(len(self._shown))]
        return pictures[random.integers(len(pictures))]


def paste_objects(
    image: np.ndarray, mask: np.ndarray, from_image: np.ndarray, from_mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`image` (H, W, 3) uint8 and `mask` (H, W) uint8 with all objects of the other two, alike in shape, on top.

    The pixels around a pasted object are void, as VOC's own contours are. Both come back as they were when the objects
    are very small or very large. The arguments stay as they are.
    """
    objects = (from_mask != BACKGROUND) & (from_mask != VOID)
    if not SMALLEST_SHARE <= objects.mean() <= LARGEST_SHARE:
        return image, mask
    around = cv2.dilate(objects.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~objects
    mask = np.where(objects, from_mask, mask)
    mask[around] = VOID
    return np.where(objects[..., None], from_image, image), mask
