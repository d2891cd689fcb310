"""Labels are what a person would call the source, safe as names of folders, and never the same twice."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fcnedge.runtime.run.labels import source_labels


@pytest.mark.parametrize(
    ("source", "label"),
    [
        ("0", "video0"),
        ("02", "video2"),
        ("/dev/video1", "video1"),
        ("v4l2:///dev/video0", "video0"),
        ("/dev/v4l/by-id/usb-Cam_2-video-index0", "usb-Cam_2-video-index0"),
        ("csi://0", "csi0"),
        ("rtsp://10.0.0.5/live", "10.0.0.5_live"),
        ("rtsp://user:secret@cam.local:8554/a/b?token=secret", "cam.local_8554_a_b"),
        ("http://[::1]:80/video", "1_80_video"),
        ("rtsp://cam:port/x", "rtsp"),
        ("demo://", "demo"),
        ("demo://clip", "demo_clip"),
        ("holiday in Köln.mp4", "holiday_in_Köln"),
        ("file:///data/holiday.mp4", "holiday"),
        ("/data/shots/*.jpg", "shots"),
        ("shots/image_%04d.jpg", "image"),
        ("videotestsrc ! videoconvert", "pipeline"),
        ("...", "source"),
    ],
)
def test_label_is_the_name_of_the_source(source, label):
    assert source_labels([source]) == [label]


def test_folders_keep_their_whole_name_and_dots_have_that_of_the_folder(tmp_path, monkeypatch):
    (tmp_path / "run.2024").mkdir()
    monkeypatch.chdir(tmp_path / "run.2024")
    assert source_labels([str(tmp_path / "run.2024"), ".", f"{tmp_path}/run.2024/"]) == [
        "run.2024",
        "run.2024_2",
        "run.2024_3",
    ]


def test_labels_that_differ_in_case_alone_are_told_apart():
    assert source_labels(["a/Shot.mp4", "b/shot.mp4", "shot_2.mp4"]) == ["Shot", "shot_2", "shot_2_2"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200), max_size=5))
@example(["~0"])
def test_labels_are_safe_and_unique_whatever_the_words_are(words):
    labels = source_labels(words)
    assert len({label.lower() for label in labels}) == len(words)
    assert all(re.fullmatch(r"[\w.-]{1,90}", label) and not label.startswith(".") for label in labels)
