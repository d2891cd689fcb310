"""The stages of one frame, from the source to the picture with its classes painted on, and how they are timed.

    decode → preprocess → h2d → compute → d2h → head → overlay        CPU: perf_counter_ns; GPU: events on its stream

| stage         | on a CPU                            | on a GPU                                   |
|---------------|-------------------------------------|--------------------------------------------|
| decode        | the source's next frame             | the same                                   |
| preprocess    | to the network's size               | its kernel                                 |
| h2d           | none                                | copy into pinned memory, upload            |
| compute       | the backend's one call              | the network                                |
| d2h           | none                                | download                                   |
| head          | scores → labels at the frame's size | its kernel, waiting, the caller's copy     |
| overlay       | class colours over the frame        | the same; where the GPU paints, its kernel |
| frame_to_mask | preprocess to head, wall clock      | the same                                   |
| end_to_end    | all of it, wall clock               | the same                                   |
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter_ns

import numpy as np

from fcnedge.runtime import Frame, Segmentation, Segmenter
from fcnedge.runtime.opencv import load_cv2
from fcnedge.runtime.overlay import blend

STAGES = ("decode", "preprocess", "h2d", "compute", "d2h", "head", "overlay", "frame_to_mask", "end_to_end")
PARTS = STAGES[:7]
"""Those that follow one another; the last two stages are sums of them."""
NO_STAGE = float("nan")
"""Time of a stage that this path does not have."""


def time_frame(
    frames: Iterator[Frame], segmenter: Segmenter, *, live: bool, size: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Take the next frame all the way; None when the source has no more.

    Gives its times, (len(STAGES),) milliseconds, and the frame, (H, W, 3) uint8 BGR as it was masked.

    live: the source is a camera, which is waited for: decode then has no time, and end_to_end begins with the frame in
    hand. size: (height, width) to scale each frame to, outside the clock.
    """
    started = perf_counter_ns()
    frame = next(frames, None)
    if frame is None:
        return None
    decoded = perf_counter_ns()
    image = scaled(frame.image, size)
    in_hand = perf_counter_ns()
    found = segmenter.segment(image)
    masked = perf_counter_ns()
    if found.overlay is None:
        blend(image, found.mask, segmenter.palette)
    painted = perf_counter_ns()
    decode = NO_STAGE if live else (decoded - started) / 1e6
    overlay = (painted - masked) / 1e6
    whole = (painted - in_hand) / 1e6 + (0.0 if live else decode)
    times = np.array([decode, *_inside(found, overlay), (masked - in_hand) / 1e6, whole])
    return times, image


def scaled(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """A frame at (height, width), or as it is for None."""
    if size is None or image.shape[:2] == size:
        return image
    cv2 = load_cv2()
    return cv2.resize(np.ascontiguousarray(image), size[::-1], interpolation=cv2.INTER_AREA)


def _inside(found: Segmentation, overlay_ms: float) -> tuple[float, float, float, float, float, float]:
    """preprocess, h2d, compute, d2h, head and overlay of one result, in milliseconds."""
    gpu = found.gpu_ms
    if gpu is None:
        return found.preprocess_ms, NO_STAGE, found.infer_ms, NO_STAGE, found.head_ms, overlay_ms
    # `preprocess_ms` holds the host's copy, the upload and the kernel; `head_ms` all that comes after the network.
    upload = found.preprocess_ms - gpu["preprocess"]
    head = max(0.0, found.head_ms - gpu["download"] - gpu["overlay"])
    return gpu["preprocess"], upload, gpu["network"], gpu["download"], head, gpu["overlay"] + overlay_ms
