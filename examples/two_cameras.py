"""Two cameras, one model: they take turns at it, and a slow or lost one does not hold up the other.

    python examples/two_cameras.py                              a demonstration camera and a clip
    python examples/two_cameras.py rtsp://front/live 0          whatever fcn-run takes; more than two if you like

It needs a model: fcn-build model fcn8s-lite0-voc -o fcn8s-lite0-voc.
"""

import argparse
import sys

import numpy as np

from fcnedge.runtime import Pipeline, Segmenter, StreamResult, UserError


class Watch:
    """Says what each camera sees; called by a thread of the pipeline's, with one result at a time."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = classes

    def __call__(self, result: StreamResult) -> None:
        """Print the classes of one mask, the largest first. The background is not worth a word."""
        mask = result.segmentation.mask
        shares = np.bincount(mask.ravel(), minlength=len(self._classes)) / mask.size
        seen = [class_id for class_id in np.argsort(-shares, kind="stable") if class_id and shares[class_id] >= 0.01]
        words = ", ".join(f"{self._classes[class_id]} {shares[class_id]:.0%}" for class_id in seen) or "nothing"
        print(f"{result.source} {result.sequence}: {words} ({result.age_ms:.0f} ms old)", flush=True)


def main() -> None:
    """Run until all cameras have ended, then say how each of them did."""
    parser = argparse.ArgumentParser(description="Watch several cameras with one model.", allow_abbrev=False)
    parser.add_argument("sources", nargs="*", default=["demo://camera", "demo://clip"])
    parser.add_argument("--model", default="fcn8s-lite0-voc", metavar="BUNDLE")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--frames", type=int, help="end after this many, of all cameras together")
    options = parser.parse_args()
    with (
        Segmenter(options.model, options.backend) as segmenter,
        Pipeline(options.sources, segmenter, [Watch(segmenter.classes)]) as pipeline,
    ):
        try:
            pipeline.run(options.frames)
        finally:
            for status in pipeline.statuses:
                print(f"{status.uri}: {status.processed} masks, {status.dropped} frames dropped")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"two_cameras: {error}")
