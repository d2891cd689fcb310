"""Reading a folder in PASCAL VOC's layout: what is found, and what is refused before hours of work."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fcnedge.calibration.voc import (
    VOID,
    VocSample,
    check_voc,
    find_voc_root,
    is_voc_folder,
    read_palette_mask,
    read_voc,
    read_voc_images,
    splits,
)
from fcnedge.runtime.errors import UserError


@pytest.fixture
def own_voc(voc_folder: Path, tmp_path: Path) -> Path:
    """Give a copy of `voc_folder` that a test may spoil."""
    return shutil.copytree(voc_folder, tmp_path / "VOCdevkit" / "VOC2012")


def split_file(folder: Path, split: str = "train") -> Path:
    return folder / "ImageSets" / "Segmentation" / f"{split}.txt"


@pytest.mark.parametrize("up", [0, 1, 2], ids=["VOC2012", "VOCdevkit", "above"])
@pytest.mark.parametrize("kind", [Path, str])
def test_layout_is_found_from_each_level(own_voc, up, kind):
    given = [own_voc, *own_voc.parents][up]
    samples = read_voc(kind(given), "val")
    assert [sample.name for sample in samples] == ["val_000000", "val_000001", "val_000002"]
    assert samples[0].image_path == own_voc / "JPEGImages" / "val_000000.jpg"
    assert samples[0].mask_path == own_voc / "SegmentationClass" / "val_000000.png"


@pytest.mark.parametrize("name", ["gone", "JPEGImages"])
def test_folder_of_another_layout_is_refused(own_voc, name):
    with pytest.raises(UserError, match=rf"{name} is not a VOC folder: it has no ImageSets/Segmentation; pass the"):
        find_voc_root(own_voc / name)


def test_order_is_the_lists(own_voc):
    split_file(own_voc).write_text("val_000001\n\n  train_000003  \r\nval_000000", encoding="utf-8")
    assert [sample.name for sample in read_voc(own_voc, "train")] == ["val_000001", "train_000003", "val_000000"]


def test_unknown_split_lists_the_known_ones(own_voc):
    with pytest.raises(UserError, match=r"VOC2012 has no split 'test'; it has train, val\.$"):
        read_voc(own_voc, "test")


def test_folder_without_any_split_says_so(own_voc):
    for split in ("train", "val"):
        split_file(own_voc, split).unlink()
    with pytest.raises(UserError, match=r"has no split 'train'; it has none\.$"):
        read_voc(own_voc, "train")


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_empty_split_is_refused(own_voc, text):
    split_file(own_voc).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"train\.txt is empty; write one picture name per line\.$"):
        read_voc(own_voc, "train")


def test_all_missing_files_are_listed_at_once(own_voc):
    gone = [own_voc / "JPEGImages" / "train_000002.jpg", own_voc / "SegmentationClass" / "train_000005.png"]
    for path in gone:
        path.unlink()
    with pytest.raises(UserError) as caught:
        read_voc(own_voc, "train")
    assert str(caught.value) == f"{split_file(own_voc)} names files that are not there: {gone[0]}, {gone[1]}."


def test_a_great_many_missing_files_are_counted(own_voc):
    split_file(own_voc).write_text("\n".join(f"n{index}" for index in range(30)), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_voc(own_voc, "train")
    assert str(caught.value).endswith(f"{own_voc}/SegmentationClass/n4.png and 50 more.")
    assert str(caught.value).count("/n") == 10


def test_mask_holds_ids_not_colours(own_voc):
    sample = read_voc(own_voc, "train")[0]
    mask = sample.read_mask()
    assert (mask.dtype, mask.ndim) == (np.uint8, 2)
    assert set(np.unique(mask)) == {0, 1, 2, VOID}
    colours = cv2.imread(str(sample.mask_path))  # what one gets who forgets the palette
    assert colours[mask == 1].tolist()[0] == [0, 0, 128]


@pytest.mark.parametrize("mode", ["P", "L"])
def test_palette_and_grey_masks_give_the_same_ids(tmp_path, mode):
    ids = np.arange(256, dtype=np.uint8).reshape(8, 32)
    picture = Image.fromarray(ids)
    if mode == "P":
        picture.putpalette(bytes(reversed(range(256))) * 3)
    picture.save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as written:
        assert written.mode == mode
    np.testing.assert_array_equal(read_palette_mask(tmp_path / "mask.png"), ids)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1", "I;16"])
def test_mask_of_another_mode_is_refused(tmp_path, mode):
    Image.new(mode, (4, 3)).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match=rf"mask\.png has mode {mode}; a VOC mask is a palette PNG \(mode P\)"):
        read_palette_mask(tmp_path / "mask.png")


def test_missing_mask_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png is not a readable mask"):
        read_palette_mask(tmp_path / "gone.png")


def test_mask_cut_short_anywhere_is_refused_or_complete(own_voc, tmp_path):
    whole = read_voc(own_voc, "train")[0]
    data, expected = whole.mask_path.read_bytes(), whole.read_mask()
    cut, refused = tmp_path / "cut.png", 0
    for length in range(0, len(data), 7):
        cut.write_bytes(data[:length])
        try:
            np.testing.assert_array_equal(read_palette_mask(cut), expected)  # only its end marker was lost
        except UserError as error:
            assert "is not a readable mask" in str(error)  # noqa: PT017 - one of two allowed outcomes
            refused += 1
    assert refused > 0.8 * len(data) / 7


def test_damaged_mask_is_refused_and_never_a_crash(own_voc, tmp_path):
    data = read_voc(own_voc, "train")[0].mask_path.read_bytes()
    damaged, refused = tmp_path / "damaged.png", 0
    for offset in range(len(data)):
        damaged.write_bytes(data[:offset] + bytes([data[offset] ^ 0x5A]) + data[offset + 1 :])
        try:
            read_palette_mask(damaged)
        except UserError:
            refused += 1
    assert refused > 0.5 * len(data)


def test_image_is_bgr(own_voc):
    image = read_voc(own_voc, "train")[0].read_image()
    mask = read_voc(own_voc, "train")[0].read_mask()
    assert (image.dtype, image.shape) == (np.uint8, (*mask.shape, 3))
    assert image[mask == 1].mean(0) == pytest.approx([30, 30, 220], abs=12)


@pytest.mark.parametrize("spoil", ["truncated", "text", "empty"])
def test_damaged_image_is_refused(own_voc, spoil):
    sample = read_voc(own_voc, "train")[0]
    data = sample.image_path.read_bytes()
    sample.image_path.write_bytes({"truncated": data[: len(data) // 2], "text": b"no picture", "empty": b""}[spoil])
    with pytest.raises(UserError, match=r"train_000000\.jpg is (truncated|not a picture|empty)"):
        sample.read_image()


def test_image_that_vanished_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"gone\.jpg cannot be read: No such file or directory"):
        VocSample("gone", tmp_path / "gone.jpg", tmp_path / "gone.png").read_image()


def test_real_voc_is_read(real_voc):
    samples = read_voc(real_voc, "val")
    assert len(samples) >= 300
    for sample in samples[:: len(samples) // 5]:
        mask = sample.read_mask()
        assert sample.read_image().shape == (*mask.shape, 3)
        assert mask[mask != VOID].max(initial=0) <= 20
        assert (mask == 0).any()


def test_pictures_alone_need_no_masks(own_voc):
    shutil.rmtree(own_voc / "SegmentationClass")
    images = read_voc_images(own_voc, "val")
    assert images[1] == ("val_000001", own_voc / "JPEGImages" / "val_000001.jpg")
    images[1][1].unlink()
    with pytest.raises(UserError, match=r"val\.txt names files that are not there: .*JPEGImages/val_000001\.jpg\.$"):
        read_voc_images(own_voc, "val")


def test_splits_are_listed(own_voc):
    assert splits(own_voc.parent) == ["train", "val"]
    assert is_voc_folder(own_voc.parent.parent)
    assert not is_voc_folder(own_voc / "JPEGImages")


def test_list_that_is_no_text_is_refused(own_voc):
    split_file(own_voc).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"train\.txt cannot be read \(.*\); write one picture name per line"):
        read_voc(own_voc, "train")


def test_good_samples_pass(own_voc):
    check_voc(read_voc(own_voc, "train"), classes=3)


def test_all_problems_are_listed_at_once(own_voc):
    samples = read_voc(own_voc, "train")
    Image.new("RGB", (96, 64)).save(samples[1].mask_path)  # colours, as an image editor saves them
    Image.new("P", (95, 64)).save(samples[3].mask_path)
    mask = samples[5].read_mask()
    mask[0, :2] = 7, 254
    Image.fromarray(mask).save(samples[5].mask_path)
    samples[6].image_path.write_bytes(b"no picture")
    samples[7].mask_path.write_bytes(b"no mask")
    with pytest.raises(UserError) as caught:
        check_voc(samples, classes=3)
    text = str(caught.value)
    assert text.startswith(
        f"5 problems in 8 samples: {samples[1].mask_path} has mode RGB; a VOC mask is a palette PNG (mode P) holding "
        f"class ids; {samples[3].mask_path} is 95x64, its picture 96x64; {samples[5].mask_path} holds the ids 7, 254, "
        f"which are none of 3 classes; {samples[6].image_path} is not a readable picture: "
    )
    assert f"; {samples[7].mask_path} is not a readable mask: " in text


def test_void_is_no_unknown_id_and_one_class_too_few_is(own_voc):
    samples = read_voc(own_voc, "val")
    with pytest.raises(UserError, match=r"^3 problems in 3 samples: .* holds the ids 2, which are none of 2 classes"):
        check_voc(samples, classes=2)


def test_a_great_many_problems_are_counted(own_voc):
    samples = read_voc(own_voc, "train") * 3
    with pytest.raises(UserError, match=r"^24 problems in 24 samples: .* and 14 more\.$"):
        check_voc(samples, classes=1)


def test_picture_stored_on_its_side_fits_its_upright_mask(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("P", (20, 40)).save(tmp_path / "a.png")
    sample = VocSample("a", tmp_path / "a.jpg", tmp_path / "a.png")
    assert sample.read_image().shape == (40, 20, 3)
    check_voc([sample], classes=1)
