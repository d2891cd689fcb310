"""Nothing but masks: how far the way ahead is free, column by column, without drawing or writing a picture.

    python examples/masks_only.py                         the demonstration clip
    python examples/masks_only.py /dev/video0             a webcam; csi://0, rtsp://… or a film likewise

It needs a model: fcn-build model fcn8s-lite0-voc -o fcn8s-lite0-voc.
"""

import argparse
import sys

import numpy as np

from fcnedge.runtime import Segmenter, Stream, UserError

BARS = " ▁▂▃▄▅▆▇█"


def free_way(mask: np.ndarray, free_class: int = 0, sectors: int = 24) -> np.ndarray:
    """(H, W) uint8 class ids → (sectors,) share of the height, 0 to 1, that is free from the bottom edge upwards.

    A sector is as free as its worst column.
    """
    blocked = mask[::-1] != free_class
    rows = np.where(blocked.any(axis=0), blocked.argmax(axis=0), len(mask))  # of free pixels, in each column
    return np.array([part.min() for part in np.array_split(rows, min(sectors, rows.size))]) / len(mask)


def main() -> None:
    """Print the free way of each mask as a row of bars."""
    sys.stdout.reconfigure(errors="replace")  # a terminal that has no bars
    parser = argparse.ArgumentParser(description="Show how far the way is free.", allow_abbrev=False)
    parser.add_argument("source", nargs="?", default="demo://clip")
    parser.add_argument("--model", default="fcn8s-lite0-voc", metavar="BUNDLE")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--frames", type=int, help="end after this many")
    options = parser.parse_args()
    with Segmenter(options.model, options.backend) as segmenter, Stream(options.source, segmenter) as stream:
        for count, result in enumerate(stream, start=1):
            free = free_way(result.segmentation.mask)
            bars = "".join(BARS[round(share * (len(BARS) - 1))] for share in free)
            print(f"{result.frame.name} |{bars}| {free.min():.0%} to {free.max():.0%} free", flush=True)
            if count == options.frames:
                break


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"masks_only: {error}")
