"""Takes the README's picture of the live page: a real bundle on the demonstration clip, seen by Chromium.

    python tests/runtime/web/live_page_picture.py build/demo/fcn8s-lite0-voc docs/images/live-page.png

Needs Chromium, and Pillow, which brings the picture to 256 colours and so under 300 kB.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from chromium import Chromium
from PIL import Image

from fcnedge.runtime import Segmenter, open_source
from fcnedge.runtime.streams.result import StreamResult
from fcnedge.runtime.streams.status import SourceState, SourceStatus
from fcnedge.runtime.web import LivePage

WINDOW = (1200, 740)
FRAMES = range(45, 52)
"""Of the clip: played at its own pace, and stopped at the last for the picture."""
SIGNS = [(0xFF, 0xFF, 0xFF), (0xF3, 0xF4, 0xF6), (0x14, 0x17, 0x1C), (0x16, 0x80, 0x3C), (0x1F, 0x5F, 0xD6)]
"""Colours of the page that cover too little of it to be chosen among 256."""


def main(bundle: str, target: str) -> None:
    """Play FRAMES of the clip, and write the picture of the page."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        Chromium(Path(profile)) as browser,
        Segmenter(bundle) as segmenter,
        open_source("demo://clip") as source,
    ):
        words = f"{segmenter.bundle.manifest.name} · {segmenter.backend.name} {segmenter.backend.precision}"
        with LivePage("http://127.0.0.1:0", segmenter.palette, segmenter.classes, words) as page:
            browser.open(page.url, *WINDOW)
            play(source, segmenter, page)
            browser.until(f"document.getElementById('stage').dataset.number == '{len(FRAMES)}'")
            browser.until("document.getElementById('fps').textContent != '–'")
            picture = browser.screenshot()
            assert browser.console == [], browser.console
        few_colours(picture, segmenter.palette).save(target, optimize=True)


def few_colours(picture: bytes, palette: np.ndarray) -> Image.Image:
    """The picture in 256 colours: the photograph's dithered, those of the page and of classes kept as they are."""
    kept = np.vstack([np.array(SIGNS), palette.astype(int)])
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    count = 256 - len(kept)
    few = image.quantize(count, dither=Image.Dither.FLOYDSTEINBERG)
    indices, pixels = np.array(few), np.asarray(image, int)
    for index, colour in enumerate(kept, count):
        indices[(pixels == colour).all(axis=2)] = index
    result = Image.fromarray(indices, "P")
    result.putpalette([*(few.getpalette() or [])[: 3 * count], *kept.ravel().tolist()])
    return result


def play(source, segmenter: Segmenter, page: LivePage) -> None:
    """Publish the frames, each when its time has come."""
    status = SourceStatus(source.uri, SourceState.CONNECTING)
    page.statuses = lambda: [status]
    frames = [frame for frame in source if frame.index in FRAMES]
    started = time.monotonic()
    for count, frame in enumerate(frames, 1):
        due = started + frame.timestamp_s - frames[0].timestamp_s
        time.sleep(max(0.0, due - time.monotonic()))
        captured = time.monotonic()
        segmentation = segmenter.segment(frame.image)
        status = SourceStatus(source.uri, SourceState.LIVE, count, count, 0, 1, source.fps)
        page.publish(StreamResult(frame, segmentation, source.uri, frame.index, 0, captured, time.monotonic()))


if __name__ == "__main__":
    main(*sys.argv[1:])
