"""What every test may need: quiet libraries, and folders in PASCAL VOC's layout."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# Before any test imports TensorFlow: its start-up chatter hides failures, and no test may take somebody's GPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

# A shell that starts the tests in the background has them ignore SIGINT, and so would every command that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is, nothing else.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

COLOURS_BGR = ((40, 40, 40), (30, 30, 220), (220, 60, 30))
"""Colour in the pictures of `voc_folder` of background (0), aeroplane (1) and bicycle (2)."""
VOID = 255


@pytest.fixture(scope="session")
def voc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder like VOCdevkit/VOC2012: 8 pictures to train on, 3 to validate; their colours give their classes.

    64x96 or 96x64 pixels, JPEG and palette PNG, classes 0 to 2 with a void line around each object. Do not write to it.
    """
    folder = tmp_path_factory.mktemp("voc") / "VOCdevkit" / "VOC2012"
    random = np.random.default_rng(20)
    for split, count in (("train", 8), ("val", 3)):
        names = [f"{split}_{index:06d}" for index in range(count)]
        for index, name in enumerate(names):
            _write_sample(folder, name, (64, 96) if index % 2 else (96, 64), random)
        listing = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("\n".join(names) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def real_voc() -> Path:
    """Give the folder VOCdevkit with VOC2012 in it, from FCNEDGE_VOC or beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "VOCdevkit"
    folder = Path(os.environ.get("FCNEDGE_VOC", beside))
    if not (folder / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").is_file():
        pytest.skip(f"no Pascal VOC at {folder}; set FCNEDGE_VOC to the folder VOCdevkit")
    return folder


@pytest.fixture(scope="session")
def shipped_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the shipped model in FP32 and INT8, as `make demo` builds it. Takes 15 seconds: for slow tests only."""
    from fcnedge.build_engine.build import build_bundle
    from fcnedge.build_engine.model_source import resolve_source
    from fcnedge.build_engine.typed_plan import plan_precisions

    source = resolve_source("fcn8s-lite0-voc")
    output = tmp_path_factory.mktemp("shipped") / source.name
    build_bundle(source, output, plan=plan_precisions(source, "fp32,int8"))
    return output


def _write_sample(folder: Path, name: str, size: tuple[int, int], random: np.random.Generator) -> None:
    mask = np.zeros(size, np.uint8)
    for class_id in (1, 2):
        top, left = (int(random.integers(4, side // 2)) for side in size)
        bottom, right = top + size[0] // 3, left + size[1] // 3
        mask[top - 1 : bottom + 1, left - 1 : right + 1] = VOID
        mask[top:bottom, left:right] = class_id
    image = np.array(COLOURS_BGR, np.uint8)[np.where(mask == VOID, 0, mask)]
    for part in ("JPEGImages", "SegmentationClass"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(folder / "JPEGImages" / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    picture = Image.fromarray(mask)  # VOC's own palette: colours that are nothing like the ids
    picture.putpalette([value for index in range(256) for value in _voc_colour(index)])
    picture.save(folder / "SegmentationClass" / f"{name}.png")


def _voc_colour(index: int) -> tuple[int, int, int]:
    """RGB of VOC's colour map: the bits of the index, dealt out to the three channels from the top bit down."""
    red = green = blue = 0
    for bit in range(8):
        red |= (index >> 3 * bit & 1) << 7 - bit
        green |= (index >> 3 * bit + 1 & 1) << 7 - bit
        blue |= (index >> 3 * bit + 2 & 1) << 7 - bit
    return red, green, blue
