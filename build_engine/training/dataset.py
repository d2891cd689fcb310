"""Batches of augmented VOC pictures for Keras, decoded on worker threads."""

from __future__ import annotations

import cv2
import keras
import numpy as np

from fcnedge.calibration.voc import VOID, VocSample
from fcnedge.runtime.preprocessing import Preprocessing, fit_frame, letterbox

from .augmentation import Augmentation
from .copy_paste import ObjectSource, paste_objects


class TrainingBatches(keras.utils.PyDataset):
    """Yields (batch, crop, crop, 3) float32 network input and (batch, crop, crop) int32 class ids.

    Order and augmentation depend only on (seed, epoch, index), so a resumed run continues as if never stopped:
    whoever runs the epochs sets `epoch` at the start of each.
    copy_paste: probability from 0 to 1 that the objects of another picture are pasted on one.
    """

    def __init__(
        self,
        samples: list[VocSample],
        augmentation: Augmentation,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        seed: int,
        copy_paste: float = 0.0,
    ):
        super().__init__(workers=2, max_queue_size=8)
        self._copy_paste = copy_paste
        self._objects = ObjectSource(samples) if copy_paste > 0 else None
        self._samples = samples
        self._augmentation = augmentation
        self._preprocessing = preprocessing
        self._batch_size = batch_size
        self._seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._samples) // self._batch_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.random.default_rng((self._seed, self.epoch)).permutation(len(self._samples))
        chosen = order[index * self._batch_size : (index + 1) * self._batch_size]
        random = np.random.default_rng((self._seed, self.epoch, index))
        pairs = [self._mixed(self._samples[i], random) for i in chosen]
        images = np.stack([self._preprocessing.apply(image) for image, _ in pairs])
        return images, np.stack([mask for _, mask in pairs]).astype(np.int32)

    def _mixed(self, sample: VocSample, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        pair = self._augmented(sample, random)
        if self._objects is None or random.random() >= self._copy_paste:
            return pair
        other = self._objects.draw(random)
        return pair if other is None else paste_objects(*pair, *self._augmented(other, random))

    def _augmented(self, sample: VocSample, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self._augmentation(sample.read_image(), sample.read_mask(), random)


class ValidationBatches(keras.utils.PyDataset):
    """Yields one picture at a time as it is deployed, (1, H, W, 3) float32 and (1, H, W) int32, letterbox void.

    size: (height, width) of the network; fit: "stretch" or "letterbox".
    """

    def __init__(self, samples: list[VocSample], preprocessing: Preprocessing, *, size: tuple[int, int], fit: str):
        super().__init__(workers=2)
        self._samples = samples
        self._preprocessing = preprocessing
        self._size, self._fit = size, fit

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        sample = self._samples[index]
        image, _ = fit_frame(sample.read_image(), self._size, self._fit)
        mask = fit_mask(sample.read_mask(), self._size, self._fit)
        return self._preprocessing.apply(image)[None], mask.astype(np.int32)[None]


def fit_mask(mask: np.ndarray, size: tuple[int, int], fit: str) -> np.ndarray:
    """Bring a mask (H, W) uint8 to `size` as fit_frame brings its picture there; what stays free is void."""
    if fit == "letterbox":
        return letterbox(mask, size, fill=VOID, nearest=True)
    return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
