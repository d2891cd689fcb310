"""Which pictures are taken: always the same ones, from the right list, and few of them not silently."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path

import pytest

from fcnedge.calibration.pictures import choose_pictures
from fcnedge.runtime.errors import SourceError, UserError


@pytest.fixture
def own_voc(voc_folder: Path, tmp_path: Path) -> Path:
    """Give a copy of `voc_folder` that a test may spoil."""
    return shutil.copytree(voc_folder, tmp_path / "VOCdevkit" / "VOC2012")


def write_split(folder: Path, split: str, *names: str) -> None:
    (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names), encoding="utf-8")


def test_split_calibration_comes_before_train(own_voc):
    assert choose_pictures(own_voc).origin == f"split train of {own_voc}"
    write_split(own_voc, "calibration", "train_000002")
    chosen = choose_pictures(own_voc)
    assert chosen.names == ("train_000002",)
    assert chosen.paths == (own_voc / "JPEGImages" / "train_000002.jpg",)
    assert choose_pictures(own_voc, "train").available == 8


def test_voc_without_train_says_what_it_has(own_voc):
    (own_voc / "ImageSets" / "Segmentation" / "train.txt").unlink()
    with pytest.raises(UserError, match=r"has no split 'train'; it has val\.$"):
        choose_pictures(own_voc)


def test_masks_are_not_needed(own_voc):
    shutil.rmtree(own_voc / "SegmentationClass")
    assert len(choose_pictures(own_voc).paths) == 8


def test_list_that_names_missing_pictures_is_refused(own_voc):
    for index in (1, 4):
        (own_voc / "JPEGImages" / f"train_{index:06d}.jpg").unlink()
    with pytest.raises(UserError, match=r"names files that are not there: .*train_000001\.jpg, .*train_000004\.jpg\.$"):
        choose_pictures(own_voc)


@pytest.mark.parametrize(
    ("images", "taken"), [(1, [0]), (2, [0, 4]), (3, [0, 2, 5]), (5, [0, 1, 3, 4, 6]), (8, range(8)), (99, range(8))]
)
def test_choice_is_evenly_spaced(voc_folder, images, taken):
    assert choose_pictures(voc_folder, images=images).names == tuple(f"train_{index:06d}" for index in taken)


def test_fewer_pictures_than_asked_and_few_pictures_are_said(voc_folder, caplog):
    with caplog.at_level(logging.WARNING):
        choose_pictures(voc_folder, images=512)
    assert caplog.messages == [
        f"split train of {voc_folder} has 8 pictures, 512 were asked for; all of them are taken.",
        "8 pictures are few to calibrate on; take 300 or more.",
    ]


def test_val_is_warned_of(voc_folder, caplog):
    choose_pictures(voc_folder, "val", 1)
    assert "these are the pictures that accuracy is measured on; calibrate on others, such as train." in caplog.messages


def test_enough_pictures_are_taken_without_a_word(own_voc, caplog):
    write_split(own_voc, "calibration", *["train_000000"] * 300)
    assert len(choose_pictures(own_voc, images=300).paths) == 300
    assert caplog.messages == []


def test_plain_folder_of_pictures_in_natural_order(photographs):
    (photographs / "notes.txt").write_text("no picture", encoding="utf-8")
    chosen = choose_pictures(photographs, images=4)
    assert chosen.names == ("photo0.png", "photo3.png", "photo6.png", "photo9.png")
    assert (chosen.available, chosen.origin) == (12, str(photographs))


def test_split_of_a_plain_folder_is_refused(photographs):
    with pytest.raises(UserError, match=r"is not a VOC folder, so it has no split 'train'; leave --split out"):
        choose_pictures(photographs, "train")


def test_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(SourceError, match="holds no pictures"):
        choose_pictures(tmp_path)
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        choose_pictures(tmp_path / "gone")


def test_empty_split_is_refused(own_voc):
    write_split(own_voc, "calibration")
    with pytest.raises(UserError, match=r"calibration\.txt is empty; write one picture name per line"):
        choose_pictures(own_voc)


def test_hash_is_over_names_and_sizes_in_order(photographs):
    chosen = choose_pictures(photographs, images=2)
    text = "".join(f"{name}\n{(photographs / name).stat().st_size}\n" for name in ("photo0.png", "photo6.png"))
    assert chosen.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert chosen.sha256 != choose_pictures(photographs, images=3).sha256
    with (photographs / "photo6.png").open("ab") as file:
        file.write(b"\0")
    assert chosen.sha256 != hashlib.sha256(text.encode()).hexdigest()


def test_picture_that_vanishes_is_named(photographs):
    chosen = choose_pictures(photographs)
    (photographs / "photo3.png").unlink()
    with pytest.raises(UserError, match=r"photo3\.png cannot be read \(No such file or directory\); leave it out"):
        _ = chosen.sha256
