"""A robot that follows a person: it turns to where the mask has one, and drives on while the person looks small.

    python examples/follow_person.py                      the demonstration camera, commands printed
    python examples/follow_person.py /dev/video0          a webcam; csi://0, rtsp://… or a film likewise

It needs a model: fcn-build model fcn8s-lite0-voc -o fcn8s-lite0-voc. Replace `Motors` by your own.
"""

import argparse
import sys
import threading

import numpy as np

from fcnedge.runtime import Segmenter, Stream, UserError

DEADMAN_S = 0.5
NEAR, TOO_SMALL = 0.30, 0.005  # shares of the picture: near enough to stop; a speck that is no person


class Motors:
    """Motors that only say what they would do, and stop by themselves when nobody has spoken to them for a while.

    Yours should too: from a camera that is lost no masks come, and a loop that waits for one gives no commands.
    """

    def __init__(self) -> None:
        self._commanded, self._closed = threading.Event(), False
        threading.Thread(target=self._watch, daemon=True).start()

    def drive(self, forward: float, turn: float, why: str) -> None:
        """forward: 0 to 1; turn: -1 (left) to 1 (right)."""
        self._commanded.set()
        print(f"drive forward {forward:.2f} turn {turn:+.2f}  {why}", flush=True)

    def _watch(self) -> None:
        while self._commanded.wait():
            self._commanded.clear()
            if not self._commanded.wait(DEADMAN_S):
                print(f"motors stopped: no command for {DEADMAN_S} s", flush=True)


def steer(mask: np.ndarray, class_id: int) -> tuple[float, float, str]:
    """(H, W) uint8 class ids → (forward, turn, why), from the class's share of the picture and its centre."""
    columns = np.count_nonzero(mask == class_id, axis=0)
    share = columns.sum() / mask.size
    if share < TOO_SMALL:
        return 0.0, 0.0, "nobody there"
    centre = np.average(np.arange(mask.shape[1]) + 0.5, weights=columns) / mask.shape[1]
    return max(0.0, 1 - share / NEAR), 2 * centre - 1, f"{share:.0%} of the picture"


def main() -> None:
    """Steer by each mask until the source ends."""
    parser = argparse.ArgumentParser(description="Follow a person.", allow_abbrev=False)
    parser.add_argument("source", nargs="?", default="demo://camera")
    parser.add_argument("--model", default="fcn8s-lite0-voc", metavar="BUNDLE")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--follow", default="person", metavar="CLASS")
    parser.add_argument("--max-age-ms", type=float, default=500, help="stop when what was seen is older than this")
    parser.add_argument("--frames", type=int, help="end after this many")
    options = parser.parse_args()
    motors = Motors()
    with Segmenter(options.model, options.backend) as segmenter, Stream(options.source, segmenter) as stream:
        if options.follow not in segmenter.classes:
            raise UserError(f"the model knows no {options.follow!r}; it knows {', '.join(segmenter.classes)}.")
        class_id = segmenter.classes.index(options.follow)
        for count, result in enumerate(stream, start=1):
            late = result.age_ms > options.max_age_ms
            motors.drive(*((0.0, 0.0, "too old") if late else steer(result.segmentation.mask, class_id)))
            if count == options.frames:
                break


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"follow_person: {error}")
