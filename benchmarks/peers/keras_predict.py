"""Keras itself: `model.predict` on one frame at a time."""

from __future__ import annotations

import numpy as np

from fcnedge.runtime.errors import missing_package

from .entry import Opened, versions_of
from .hand_work import HandWork
from .original import Original


def open_keras_predict(original: Original, hand: HandWork, threads: int) -> Opened:
    """The Keras model that the bundle was built from. Raises UserError when keras or its weights are missing."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise missing_package("tensorflow", extra="build") from error
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    model, _ = original.load()

    def segment(frame: np.ndarray) -> np.ndarray:
        pixels, content = hand.prepare(frame)
        return hand.mask(np.asarray(model.predict(pixels, verbose=0)), frame, content)

    detail = f"intra_op and inter_op parallelism {threads}"
    return Opened(segment, versions_of("keras", "tensorflow", "tensorflow-cpu"), detail)
