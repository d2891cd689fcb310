"""Several sources on one command line: each has its place, one that fails is named, and the others go on."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import urllib.request
from pathlib import Path

import cv2
import pytest

needs_demo = pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="the extra demo is not installed")


def test_each_source_has_a_folder_of_its_own_with_all_its_frames(tmp_path, fcn_run, film, pictures, masks):
    sources = [film("blue", 12), film("red", 7), pictures("shots", "green", 3)]
    done = fcn_run(*sources, tmp_path / "out")
    assert (done.code, done.errors) == (0, [])
    assert masks(tmp_path / "out" / "blue") == {f"blue_{index:06d}": {1} for index in range(12)}
    assert masks(tmp_path / "out" / "red") == {f"red_{index:06d}": {4} for index in range(7)}
    assert masks(tmp_path / "out" / "shots") == {str(index): {2} for index in range(3)}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["blue", "red", "shots"]
    assert [(each["uri"], each["frames"]) for each in done.result["sources"]] == [
        (str(source), count) for source, count in zip(sources, (12, 7, 3), strict=True)
    ]
    assert (done.result["frames"], done.result["sink"]) == (22, str(tmp_path / "out"))
    assert f"source   {sources[1]}: 7 frames" in done.out
    assert "22 frames with tiny (fake fp32)" in done.out


def test_two_sources_of_one_name_have_two_folders_and_two_places(tmp_path, fcn_run, film, masks):
    one, other = film("blue", 3, "front/shot"), film("red", 4, "rear/Shot")
    done = fcn_run(one, other, one, f"{tmp_path}/out/")
    assert done.code == 0
    assert [each["frames"] for each in done.result["sources"]] == [3, 4, 3]
    assert set(masks(tmp_path / "out" / "shot")) == {f"shot_{index:06d}" for index in range(3)}
    assert set(masks(tmp_path / "out" / "Shot_2")) == {f"Shot_{index:06d}" for index in range(4)}
    assert masks(tmp_path / "out" / "shot_3") == masks(tmp_path / "out" / "shot")


def test_second_run_replaces_what_the_first_wrote(tmp_path, fcn_run, film):
    for _ in range(2):
        assert fcn_run(film("blue", 2), film("red", 2), tmp_path / "out").code == 0


@needs_demo
def test_one_camera_twice_is_two_cameras_with_exact_counts(tmp_path, fcn_run, masks):
    done = fcn_run("demo://camera", "demo://camera", tmp_path / "out", "--frames", 11)
    assert (done.code, done.errors, done.result["frames"]) == (0, [], 11)
    written = [masks(tmp_path / "out" / name) for name in ("demo_camera", "demo_camera_2")]
    assert [len(each) for each in written] == [each["frames"] for each in done.result["sources"]]
    assert sum(map(len, written)) == 11
    for source in done.result["sources"]:
        assert source["live"]["captured"] == source["frames"] + source["live"]["dropped"]
        assert source["frames"] >= 1


def test_frames_counts_the_results_of_all_films_together(tmp_path, fcn_run, film, masks):
    done = fcn_run(film("blue", 30), film("red", 30), tmp_path / "out", "--frames", 9)
    assert (done.code, done.result["frames"]) == (0, 9)
    counts = [len(masks(tmp_path / "out" / name)) for name in ("blue", "red")]
    assert sum(counts) == 9
    assert min(counts) >= 1, "the sources take turns"


def test_source_that_cannot_be_opened_is_one_line_and_the_others_go_on(tmp_path, fcn_run, film, masks):
    done = fcn_run(tmp_path / "gone.mp4", film("blue", 5), tmp_path / "out")
    assert (done.code, done.errors) == (0, [f"fcn-run: {tmp_path / 'gone.mp4'} does not exist"])
    assert len(masks(tmp_path / "out" / "blue")) == 5
    assert done.result["sources"][0] == {
        "uri": str(tmp_path / "gone.mp4"),
        "frames": 0,
        "skipped_files": 0,
        "warning": f"{tmp_path / 'gone.mp4'} does not exist",
        "live": None,
    }


@pytest.mark.parametrize("length", [1, 40])
def test_source_that_ends_in_an_error_is_one_line_however_long_the_others_are(
    tmp_path, fcn_run, film, pictures, masks, length
):
    shots = pictures("shots", "red", 1)
    (shots / "0.png").write_bytes((shots / "0.png").read_bytes()[:60])
    (shots / "1.png").write_bytes(b"")
    done = fcn_run(shots, film("blue", length), tmp_path / "out")
    assert done.code == 0
    first, line, _ = done.errors  # and how many were passed over
    assert first.startswith(f"fcn-run: {shots / '0.png'} is truncated")
    assert line.startswith(f"fcn-run: none of the 2 pictures of {shots} can be read")
    assert len(masks(tmp_path / "out" / "shots")) == 0
    assert len(masks(tmp_path / "out" / "blue")) == length
    assert done.result["sources"][0]["warning"] == line.removeprefix("fcn-run: ")


def test_when_all_sources_fail_each_is_named_once_and_the_run_is_refused(tmp_path, fcn_run, pictures):
    shots = pictures("shots", "red", 1)
    (shots / "0.png").write_bytes((shots / "0.png").read_bytes()[:60])
    (shots / "1.png").write_bytes(b"")
    none = fcn_run(tmp_path / "a.mp4", tmp_path / "b.mp4", "null://")
    assert (none.code, none.out, none.result) == (2, "", None)
    assert sorted(none.errors) == [f"fcn-run: {tmp_path / name}.mp4 does not exist" for name in "ab"]
    late = fcn_run(tmp_path / "a.mp4", shots, tmp_path / "out")
    assert (late.code, late.out, len(late.errors)) == (2, "", 3)
    assert late.errors[-1].startswith(f"fcn-run: none of the 2 pictures of {shots} can be read, the first being that")


@pytest.mark.parametrize("sink", ["one.avi", "one.mp4", "one.png", "rtp://127.0.0.1:5004", "rtsp://u:secret@h/x"])
def test_output_for_one_source_alone_is_refused_with_what_to_name_instead(fcn_run, film, sink):
    done = fcn_run(film("blue", 1), film("red", 1), sink)
    assert (done.code, done.out) == (2, "")
    (line,) = done.errors
    assert "takes one source, and 2 were given; name a folder" in line
    assert "secret" not in line


def test_folder_that_is_a_source_is_not_written_into(tmp_path, fcn_run, film, pictures):
    shots = pictures("shots", "red", 1)
    done = fcn_run(film("blue", 1), shots, shots)
    assert done.code == 2
    assert done.errors == [
        f"fcn-run: {shots} is one of the sources; write into a folder of its own, such as {shots}/out"
    ]
    assert [path.name for path in shots.iterdir()] == ["0.png"]


def test_folder_of_one_source_is_not_another_source(tmp_path, fcn_run, pictures):
    mine, other = pictures("here/shots", "red", 1), pictures("there/shots", "blue", 1)
    done = fcn_run(other, mine, tmp_path / "here")
    assert done.code == 2
    assert done.errors[0].startswith(f"fcn-run: {mine} is one of the sources; write into a folder of its own, such as")
    assert [path.name for path in mine.iterdir()] == ["0.png"]


# Ends


def wait_for_masks(process: subprocess.Popen[str], *folders: Path) -> None:
    while process.poll() is None and not all(len(list(folder.glob("masks/*.png"))) > 2 for folder in folders):
        pass


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_films_that_are_interrupted_keep_whole_pictures(tmp_path, command, film, masks, number, code):
    out = tmp_path / "out"
    words = command(film("blue", 20), film("red", 20), out, "--input-loop", -1)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_masks(process, out / "blue", out / "red")
        process.send_signal(number)
        shown, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert shown == ""
    assert errors == {130: "fcn-run: interrupted.\n", 143: "fcn-run: terminated.\n", -9: ""}[code]
    for name, class_id in (("blue", 1), ("red", 4)):
        found = masks(out / name)
        assert len(found) > 2
        assert all(classes == {class_id} for classes in found.values())


@needs_demo
def test_cameras_that_are_interrupted_report_and_are_exit_0(tmp_path, command, masks):
    out, report = tmp_path / "out", tmp_path / "r.json"
    words = command("demo://camera", "demo://camera", out, "--json", report)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_masks(process, out / "demo_camera", out / "demo_camera_2")
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    result = json.loads(report.read_text())
    for source, name in zip(result["sources"], ("demo_camera", "demo_camera_2"), strict=True):
        assert source["frames"] == len(masks(out / name)) > 2
        assert source["live"]["captured"] == source["frames"] + source["live"]["dropped"]
    assert shown.count("camera   ") == 2


@needs_demo
def test_page_shows_two_cameras_of_one_address_as_two(command):
    words = command("demo://camera", "demo://camera", "http://127.0.0.1:0")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("live page: ").strip()
        while True:  # both say within moments how many frames they gave
            with urllib.request.urlopen(f"{address}status.json", timeout=30) as answer:
                sources = json.load(answer)["sources"]
            if all(source["shares"] for source in sources):
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert [source["uri"] for source in sources] == ["demo://camera"] * 2
    assert process.returncode == 0


def test_film_with_one_source_is_unchanged_by_the_threads(tmp_path, fcn_run, film):
    done = fcn_run(film("blue", 25), tmp_path / "out.mp4")
    assert done.code == 0
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 25
