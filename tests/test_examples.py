"""The examples, run as a reader runs them: on films of known colours, and as they are with the shipped model."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from fcnedge.runtime import Segmenter

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BLACK, BLUE, RED, BLUE_ID, RED_ID = (0, 0, 0), (255, 0, 0), (0, 0, 255), 1, 4
SPEC = importlib.util.spec_from_file_location("runtime_bundles", Path(__file__).parent / "runtime" / "conftest.py")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """Give a bundle whose classes are eight colours, for the fake backend."""
    bundles = importlib.util.module_from_spec(SPEC)
    SPEC.loader.exec_module(bundles)
    return bundles._write_bundle(tmp_path_factory.mktemp("examples") / "tiny")


def run(name: str, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, words)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", check=False, timeout=300, cwd=cwd, env=environment
    )


def lines(name: str, *words: object, cwd: Path | None = None) -> list[str]:
    done = run(name, *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def write_pictures(folder: Path, *boxes: tuple[int, int, int, int] | None, colour=RED) -> list[np.ndarray]:
    """Write a folder of pictures of 64x96 pixels, each black with one box (top, bottom, left, right), or without."""
    folder.mkdir()
    pictures = []
    for number, box in enumerate(boxes):
        picture = np.full((64, 96, 3), BLACK, np.uint8)
        if box is not None:
            picture[box[0] : box[1], box[2] : box[3]] = colour
        assert cv2.imwrite(str(folder / f"{number}.png"), picture)
        pictures.append(picture)
    return pictures


def test_robot_turns_to_the_class_slows_down_near_it_and_stops_without_it(tiny, tmp_path) -> None:
    left, none, right, near = (16, 48, 0, 32), None, (16, 48, 64, 96), (0, 64, 0, 96)
    pictures = write_pictures(tmp_path / "walk", left, none, right, near)
    options = ("--model", tiny, "--backend", "fake", "--follow", "red", "--max-age-ms", "1e9")
    drives = [line for line in lines("follow_person", tmp_path / "walk", *options) if line.startswith("drive")]
    expected = []
    with Segmenter(tiny, "fake") as segment:
        for picture in pictures:
            where = np.argwhere(segment(picture) == RED_ID)
            share = len(where) / (64 * 96)
            turn = 2 * (where[:, 1].mean() + 0.5) / 96 - 1 if len(where) else 0.0
            expected.append((f"{max(0.0, 1 - share / 0.30) if len(where) else 0.0:.2f}", f"{turn:+.2f}"))
    assert [tuple(line.split()[2:5:2]) for line in drives] == expected
    assert [float(turn) < 0 for _, turn in expected] == [True, False, False, False]
    assert [float(forward) > 0 for forward, _ in expected] == [True, False, True, False]
    assert drives[1].endswith("nobody there")


def test_robot_stops_for_a_picture_that_is_too_old(tiny, tmp_path) -> None:
    write_pictures(tmp_path / "walk", (16, 48, 0, 32))
    options = ("--model", tiny, "--backend", "fake", "--follow", "red", "--max-age-ms", "0")
    (drive,) = (line for line in lines("follow_person", tmp_path / "walk", *options) if line.startswith("drive"))
    assert drive == "drive forward 0.00 turn +0.00  too old"


def test_motors_stop_by_themselves_when_nobody_commands_them(tiny, tmp_path) -> None:
    spec = importlib.util.spec_from_file_location("follow_person", ROOT / "examples" / "follow_person.py")
    script = f"""
import importlib.util, threading
spec = importlib.util.spec_from_file_location("follow_person", {spec.origin!r})
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
stopped = threading.Event()
example.print = lambda words, flush: stopped.set() if words.startswith("motors stopped") else None
example.Motors().drive(1.0, 0.0, "")
assert stopped.wait(60)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_two_cameras_share_the_model_and_each_is_seen_in_order(tiny, tmp_path) -> None:
    whole = (0, 64, 0, 96)
    write_pictures(tmp_path / "front", *[whole] * 5)
    write_pictures(tmp_path / "rear", *[whole] * 3, colour=BLUE)
    said = lines("two_cameras", tmp_path / "front", tmp_path / "rear", "--model", tiny, "--backend", "fake")
    seen = [match.groups() for line in said if (match := re.fullmatch(r".*/(\w+) (\d+): (.*) \(\d+ ms old\)", line))]
    assert [each[1:] for each in seen if each[0] == "front"] == [(str(number), "red 100%") for number in range(5)]
    assert [each[1:] for each in seen if each[0] == "rear"] == [(str(number), "blue 100%") for number in range(3)]
    assert said[-2].endswith("front: 5 masks, 0 frames dropped")
    assert said[-1].endswith("rear: 3 masks, 0 frames dropped")


def test_a_camera_that_is_missing_does_not_hold_up_the_other(tiny, tmp_path) -> None:
    write_pictures(tmp_path / "front", None, None)
    done = run("two_cameras", tmp_path / "missing.mp4", tmp_path / "front", "--model", tiny, "--backend", "fake")
    assert done.returncode == 0
    assert "missing.mp4 does not exist" in done.stderr
    assert done.stdout.splitlines()[-1].endswith("front: 2 masks, 0 frames dropped")


def test_free_way_ends_where_an_obstacle_stands(tiny, tmp_path) -> None:
    pictures = write_pictures(tmp_path / "way", None, (16, 32, 32, 64), (0, 64, 0, 96))
    said = lines("masks_only", tmp_path / "way", "--model", tiny, "--backend", "fake")
    bars = " ▁▂▃▄▅▆▇█"
    with Segmenter(tiny, "fake") as segment:
        for picture, line in zip(pictures, said, strict=True):
            mask = segment(picture)
            free = []
            for sector in range(24):  # four columns each
                rows = 0
                while rows < 64 and (mask[63 - rows, 4 * sector : 4 * sector + 4] == 0).all():
                    rows += 1
                free.append(rows / 64)
            drawn = "".join(bars[round(share * 8)] for share in free)
            assert line.split("|")[1] == drawn
            assert line.endswith(f"| {min(free):.0%} to {max(free):.0%} free")
    assert said[0].endswith("100% to 100% free")
    assert said[2].endswith("0% to 0% free")


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_frames_end_an_example_and_mistakes_are_one_sentence(name, tiny, tmp_path) -> None:
    write_pictures(tmp_path / "four", *[None] * 4)
    options = ("--model", tiny, "--backend", "fake")
    follow = ("--follow", "red") if name == "follow_person" else ()
    said = lines(name, tmp_path / "four", *options, *follow, "--frames", 2)
    assert len([line for line in said if "drive" in line or "ms old" in line or "free" in line]) == 2
    for words, sentence in (
        ((tmp_path / "nothing.mp4", *options, *follow), "does not exist"),
        ((tmp_path / "four", "--model", tmp_path / "four"), "is not a bundle"),
    ):
        done = run(name, *words)
        assert done.returncode == 1
        assert done.stderr.startswith(f"{name}: ")
        assert sentence in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_follower_of_an_unknown_class_is_told_the_classes(tiny, tmp_path) -> None:
    write_pictures(tmp_path / "four", None)
    done = run("follow_person", tmp_path / "four", "--model", tiny, "--backend", "fake")
    assert done.returncode == 1
    assert done.stderr.startswith("follow_person: the model knows no 'person'; it knows black, blue, green")


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_example_runs_as_it_is(name, shipped_bundle) -> None:
    pytest.importorskip("skimage", reason="the extra demo is not installed")
    pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    said = lines(name, "--frames", 4, cwd=shipped_bundle.parent)
    assert len(said) >= 4
