"""Pictures on which a graph must agree with Keras before its bundle is written."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from fcnedge.runtime import open_source
from fcnedge.runtime.errors import UserError

MAX_PICTURES = 32


def read_verify_pictures(folder: Path | None) -> list[tuple[str, np.ndarray]]:
    """(name, (H, W, 3) uint8 BGR) of up to 32 pictures, evenly spread over `folder`; None: the demo photographs.

    Raises SourceError for a folder without pictures, UserError when the demo photographs are not installed.
    """
    with open_source("demo://" if folder is None else str(folder)) as source:
        length = source.length or MAX_PICTURES
        step = max(1, -(-length // MAX_PICTURES))
        spread = (frame for frame in source if frame.index % step == 0)
        pictures = [(frame.name, frame.image) for frame in islice(spread, MAX_PICTURES)]  # a camera never ends
    if not pictures:
        raise UserError(f"{folder} gives no picture to compare on; choose another for --verify.")
    return pictures
