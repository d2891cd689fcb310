"""The demonstration pictures and clip, against the packages that carry them."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnedge.runtime.demo import demo_clip_frames, demo_pictures
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.palette import VOC_CLASSES

skimage_data = pytest.importorskip("skimage.data", reason="the extra demo is not installed")
cbook = pytest.importorskip("matplotlib.cbook", reason="the extra demo is not installed")


def test_pictures_are_those_of_the_packages_in_bgr():
    pictures = {picture.name: picture.image for picture in demo_pictures()}
    assert (pictures["astronaut"][..., ::-1] == skimage_data.astronaut()).all()
    assert (pictures["chelsea"][..., ::-1] == skimage_data.chelsea()).all()
    assert (pictures["camera"] == skimage_data.camera()[..., None]).all()
    with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as hopper:
        difference = np.abs(pictures["grace_hopper"][..., ::-1].astype(int) - np.asarray(hopper.convert("RGB")))
    assert difference.mean() < 1  # two JPEG decoders


def test_every_picture_is_credited_and_holds_a_voc_class():
    for picture in demo_pictures():
        assert "CC0" in picture.credit or "public domain" in picture.credit
        assert picture.classes
        assert set(picture.classes) <= set(VOC_CLASSES[1:])


def test_clip_has_the_length_and_size_asked_for():
    frames = list(demo_clip_frames(seconds=1.5, fps=10, size=(161, 97)))
    assert len(frames) == 15
    assert {frame.shape for frame in frames} == {(97, 161, 3)}
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}


def test_clip_is_the_same_each_time():
    first, second = (list(demo_clip_frames(seconds=1, size=(160, 120))) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_clip_moves_smoothly_between_its_cuts():
    frames = [frame.astype(np.int16) for frame in demo_clip_frames(size=(160, 120))]
    steps = np.array([np.abs(b - a).mean() for a, b in pairwise(frames)])
    cuts = np.flatnonzero(steps > 30)
    assert len(cuts) == len(demo_pictures()) - 1
    moving = np.delete(steps, cuts)
    assert moving.max() < steps[cuts].min() / 3
    assert np.count_nonzero(moving) > 0.9 * len(moving)


@pytest.mark.parametrize(("module", "package"), [("skimage", "scikit-image"), ("matplotlib", "matplotlib")])
def test_missing_package_names_the_extra(monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)  # Python's own way to say: not installed
    with pytest.raises(UserError, match=rf"{package} is not installed.*fcnedge\[demo\]"):
        demo_pictures()


def test_missing_opencv_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"opencv-python is not installed.*fcnedge\[gui\]"):
        demo_pictures()


def test_reading_pictures_imports_neither_package():
    code = (
        "import sys\n"
        "from fcnedge.runtime.demo import demo_pictures\n"
        "assert 'cv2' not in sys.modules\n"
        "demo_pictures()\n"
        "assert not {'skimage', 'matplotlib', 'pooch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
