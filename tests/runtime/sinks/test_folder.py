"""A folder holds what other programs read: Pillow here."""

import logging

import cv2
import numpy as np
import pytest
from PIL import Image

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.palette import voc_palette
from fcnedge.runtime.sinks import open_sink
from fcnedge.runtime.sources import open_source


@pytest.mark.parametrize("form", ["{0}/out", "{0}/out/", "{0}/deep/er/out/", "file://{0}/out", "{0}/v1.2/"])
def test_folder_takes_masks_with_palette_and_overlays(tmp_path, result, files, form):
    uri = form.format(tmp_path)
    taken, picture = result()
    with open_sink(uri) as sink:
        assert sink.shows == ("overlay",)
        sink.take(taken, picture)
    folder = tmp_path / uri.removeprefix("file://").removeprefix(f"{tmp_path}/")
    assert files(folder) == [".fcn-run", "masks/cat.png", "overlays/cat.jpg"]
    with Image.open(folder / "masks/cat.png") as written:
        assert written.mode == "P"
        assert (np.asarray(written) == taken.segmentation.mask).all()
        assert written.getpalette() == voc_palette().ravel().tolist()
    with Image.open(folder / "overlays/cat.jpg") as written:
        assert np.abs(np.asarray(written.convert("RGB")).astype(int) - picture).max() <= 3


@pytest.mark.parametrize(
    ("visualize", "shows", "written"),
    [
        (("mask",), (), ["masks/cat.png"]),
        (("overlay",), ("overlay",), ["overlays/cat.jpg"]),
        (("mask", "overlay"), ("overlay",), ["masks/cat.png", "overlays/cat.jpg"]),
    ],
)
def test_folder_holds_what_is_asked_for_and_no_empty_folder(tmp_path, result, files, visualize, shows, written):
    taken, picture = result()
    with open_sink(tmp_path, visualize=visualize) as sink:
        assert sink.shows == shows
        sink.take(taken, picture if shows else None)
    assert files(tmp_path) == [".fcn-run", *written]
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == len(written)


def test_folder_of_masks_alone_leaves_overlays_of_others_in_peace(tmp_path, result, files):
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays/mine.jpg").write_bytes(b"by hand")
    with open_sink(tmp_path, visualize=("mask",)) as sink:
        sink.take(result()[0], None)
    assert files(tmp_path) == [".fcn-run", "masks/cat.png", "overlays/mine.jpg"]


def test_folder_uses_the_models_own_palette(tmp_path, result):
    with open_sink(tmp_path, palette=np.array([[9, 8, 7], [6, 5, 4]], np.uint8)) as sink:
        sink.take(*result(value=1))
    with Image.open(tmp_path / "masks/cat.png") as picture:
        assert (picture.getpalette() or [])[:6] == [9, 8, 7, 6, 5, 4]


def test_same_stem_twice_is_kept_twice_and_said(tmp_path, result, caplog):
    with caplog.at_level(logging.WARNING), open_sink(tmp_path) as sink:
        for value, name in enumerate(["cat", "cat_2", "cat", "CAT", "dog"]):
            sink.take(*result(name, value=value))
    masks = {path.stem: int(np.asarray(Image.open(path)).max()) for path in (tmp_path / "masks").iterdir()}
    assert masks == {"cat": 0, "cat_2": 1, "cat_3": 2, "CAT_4": 3, "dog": 4}
    assert "cat came twice; this one is written as cat_3" in caplog.text


def test_second_run_replaces_the_first(tmp_path, result, files):
    for value in (1, 2):
        with open_sink(tmp_path) as sink:
            sink.take(*result(value=value))
    assert files(tmp_path) == [".fcn-run", "masks/cat.png", "overlays/cat.jpg"]
    assert np.asarray(Image.open(tmp_path / "masks/cat.png")).max() == 2


@pytest.mark.parametrize("part", ["masks", "overlays"])
def test_files_that_no_run_wrote_are_not_replaced(tmp_path, files, part):
    """`fcn-run dataset/images dataset`, where somebody drew dataset/masks by hand."""
    drawn = tmp_path / part / "cat.png"
    drawn.parent.mkdir()
    drawn.write_bytes(b"by hand")
    with pytest.raises(UserError, match=f"{part} holds files that fcn-run did not write; name another folder"):
        open_sink(tmp_path)
    assert files(tmp_path) == [f"{part}/cat.png"]
    assert drawn.read_bytes() == b"by hand"


def test_empty_masks_and_other_files_beside_them_are_no_hindrance(tmp_path, result, files):
    (tmp_path / "masks").mkdir()
    (tmp_path / "notes.txt").write_text("other")
    with open_sink(tmp_path) as sink:
        sink.take(*result())
    assert files(tmp_path) == [".fcn-run", "masks/cat.png", "notes.txt", "overlays/cat.jpg"]


@pytest.mark.parametrize("part", ["masks", "overlays"])
@pytest.mark.parametrize("link", [False, True], ids=["named", "through a link"])
def test_folder_does_not_overwrite_the_pictures_it_reads(tmp_path, result, part, link):
    """`fcn-run out/overlays out`."""
    with open_sink(tmp_path / "out") as sink:
        sink.take(*result())
    folder = tmp_path / "out" / part
    before = next(folder.iterdir()).read_bytes()
    if link:
        (tmp_path / "shots").symlink_to(folder, target_is_directory=True)
    source = open_source(tmp_path / "shots" if link else folder)
    with pytest.raises(UserError, match=f"{part} holds the source's own files"):
        open_sink(tmp_path / "out", source=source)
    assert next(folder.iterdir()).read_bytes() == before


@pytest.mark.parametrize("form", ["{0}", "{0}/", "file://{0}", "{0}/../shots", "{0}/../link"])
def test_folder_that_is_the_source_is_refused_and_nothing_written_there(tmp_path, result, files, form):
    """`fcn-run shots shots`."""
    folder = tmp_path / "shots"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    cv2.imwrite(str(folder / "a.png"), np.zeros((4, 4, 3), np.uint8))
    sentence = r"is the source itself; write into a folder of its own, such as .*/out$"
    with pytest.raises(UserError, match=sentence):
        open_sink(form.format(folder), source=open_source(folder))
    assert files(folder) == ["a.png"]
    assert [path.name for path in folder.iterdir()] == ["a.png"]
    with open_sink(folder / "out", source=open_source(folder)) as sink:  # as the message says
        sink.take(*result())
    assert files(folder / "out") == [".fcn-run", "masks/cat.png", "overlays/cat.jpg"]


def test_folder_where_a_file_lies_is_refused(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="cannot be made"):
        open_sink(f"{tmp_path}/taken/out")
