"""fcn-calibrate as a user meets it: exit codes, one line per mistake, and the files that were asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fcnedge.calibration import cli
from fcnedge.calibration import collect as collecting
from fcnedge.calibration.ranges import read_ranges
from fcnedge.calibration.tensorrt_cache import read_cache

ONE_THREAD = ("--threads", "1")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, so that relative names and stray files show."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def run(*words: object) -> int:
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def test_ranges_cache_and_result_are_written(capsys, small_bundle, photographs):
    words = ["ranges", small_bundle, "--data", photographs, "--method", "minmax", *ONE_THREAD]
    assert run(*words, "-o", "r.json", "--cache", "c.cache", "--tensorrt", 100300, "--json", "result.json") == 0
    assert files() == ["c.cache", "r.json", "result.json"], "the histograms went with the end of the pass"
    ranges = read_ranges(Path("r.json"))
    assert (ranges.method, ranges.percentile, ranges.images) == ("minmax", None, 12)
    cache = read_cache(Path("c.cache").read_text(encoding="utf-8"), 100300)
    assert cache.steps == {name: float(np.float32(each.threshold / 127)) for name, each in ranges.tensors.items()}
    result = json.loads(Path("result.json").read_text(encoding="utf-8"))
    assert (result["images"], result["tensors"], result["cache"]) == (12, 7, "c.cache")
    assert result["peak_rss_bytes"] > 10e6
    assert "r.json: minmax of 7 tensors on 12 pictures, in " in capsys.readouterr().out


def test_kept_histograms_give_another_method_without_pictures(small_bundle, photographs, monkeypatch):
    words = ["ranges", small_bundle, "--data", photographs, *ONE_THREAD]
    assert run(*words, "--keep") == 0
    assert files() == ["ranges.json", "ranges.json.partial.npz"]
    default = read_ranges(Path("ranges.json"))
    assert (default.method, default.percentile) == ("percentile", 99.999)
    Path("ranges.json").unlink()
    monkeypatch.setattr(collecting, "read_picture", lambda path: pytest.fail(f"{path} was read again"))
    assert run(*words, "--method", "mse") == 0
    assert files() == ["ranges.json"]
    assert read_ranges(Path("ranges.json")).method == "mse"


def test_interrupted_command_exits_130_and_goes_on(capsys, small_bundle, photographs, monkeypatch):
    read, seen = collecting.read_picture, []

    def interrupted(path: Path) -> np.ndarray:
        seen.append(path)
        if len(seen) == 8:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(collecting, "read_picture", interrupted)
    words = ["ranges", small_bundle, "--data", photographs, *ONE_THREAD]
    assert run(*words) == 130
    assert files() == ["ranges.json.partial.npz"]
    assert "interrupted." in capsys.readouterr().err
    assert run(*words) == 0
    assert len(seen) == 8 + 5
    assert files() == ["ranges.json"]


def test_dry_run_says_what_would_be_done_and_writes_nothing(capsys, small_bundle, photographs):
    assert run("ranges", small_bundle, "--data", photographs, "--images", 5, "--dry-run") == 0
    assert capsys.readouterr().out == f"would collect {small_bundle}'s ranges on 5 pictures into ranges.json\n"
    assert files() == []


def test_force_replaces_the_output_and_keeps_what_was_collected(capsys, small_bundle, photographs, monkeypatch):
    words = ["ranges", small_bundle, "--data", photographs, *ONE_THREAD, "--keep"]
    assert run(*words) == 0
    monkeypatch.setattr(collecting, "read_picture", lambda path: pytest.fail(f"{path} was read again"))
    assert run(*words, "--method", "mse") == 2
    assert "ranges.json exists already; add --force to replace it." in capsys.readouterr().err
    assert run(*words, "--method", "mse", "--force") == 0
    assert read_ranges(Path("ranges.json")).method == "mse"
    assert files() == ["ranges.json", "ranges.json.partial.npz"]


def test_command_with_force_goes_on_where_it_was_interrupted(caplog, small_bundle, photographs, monkeypatch):
    read, seen = collecting.read_picture, []

    def interrupted(path: Path) -> np.ndarray:
        seen.append(path)
        if len(seen) == 8:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(collecting, "read_picture", interrupted)
    Path("ranges.json").write_text("an older one", encoding="utf-8")
    words = ["ranges", small_bundle, "--data", photographs, *ONE_THREAD, "--force"]
    assert run(*words) == 130
    kept = "7 pictures are kept in ranges.json.partial.npz; the same command goes on from there."
    assert caplog.messages[-1] == kept
    assert run(*words) == 0
    assert len(seen) == 8 + 5
    assert files() == ["ranges.json"]


def test_restart_forgets_other_pictures_ranges_and_replaces_no_output(capsys, small_bundle, photographs):
    words = ["ranges", small_bundle, "--data", photographs, *ONE_THREAD, "--keep"]
    assert run(*words) == 0
    assert run(*words, "--images", 5, "--force") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "ranges.json.partial.npz holds 12 pictures' ranges that belong to another pictures" in line
    assert line.endswith("delete it, or add --restart to start again.")
    assert run(*words, "--images", 5, "--restart") == 2
    assert "ranges.json exists already; add --force to replace it." in capsys.readouterr().err
    assert run(*words, "--images", 5, "--force", "--restart") == 0
    assert read_ranges(Path("ranges.json")).images == 5


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--images", "0"), "--images is 0; it must be 1 or more."),
        (("--images", "many"), "argument --images: invalid int value: 'many'"),
        (("--percentile", "0"), "--percentile is 0.0; it must be above 0 and at most 100."),
        (("--percentile", "100.5"), "--percentile is 100.5; it must be above 0 and at most 100."),
        (("--percentile", "nan"), "--percentile is nan; it must be above 0 and at most 100."),
        (("--threads", "0"), "--threads is 0; it must be 1 or more."),
        (("--method", "median"), "argument --method: invalid choice: 'median'"),
        (("--tensorrt", "110401"), "110401 is not a TensorRT release that reads calibration caches"),
        (("--split", "train"), "is not a VOC folder, so it has no split 'train'; leave --split out."),
        (("--data", "gone"), "the folder gone cannot be read: No such file or directory"),
        (("-o", "."), ". exists already; choose another name for -o."),
        (("--cache", "."), ". exists already; choose another name for --cache."),
        (("--imags", "5"), "unrecognized arguments: --imags 5"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_users_mistake_is_one_line_and_exit_2(capsys, small_bundle, photographs, words, complaint):
    assert run("ranges", small_bundle, "--data", photographs, *words, "--dry-run") == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert complaint in line
    assert line.startswith("fcn-calibrate")
    assert files() == []


@pytest.mark.parametrize("words", [(), ("paint",), ("ranges",), ("ranges", "b")])
def test_wrong_command_line_shows_the_way_to_the_help(capsys, words):
    assert run(*words) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("--help.")


def test_missing_bundle_is_named(capsys, photographs):
    assert run("ranges", "gone", "--data", photographs) == 2
    assert "there is no bundle at gone" in capsys.readouterr().err


def test_cache_of_a_dead_tensor_is_refused_before_anything_is_written(
    capsys, make_network, make_bundle, photographs, tmp_path
):
    import onnx

    model = make_network()
    for tensor in model.graph.initializer:
        if tensor.name == "scores.w":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros((3, 8, 4, 4), np.float32), "scores.w"))
    folder = make_bundle(tmp_path / "dead", model)
    assert run("ranges", folder, "--data", photographs, "--cache", "c.cache", *ONE_THREAD) == 2
    assert "the tensor 'scores' has the range 0, which gives no int8 step" in capsys.readouterr().err
    assert files() == ["ranges.json.partial.npz"]
