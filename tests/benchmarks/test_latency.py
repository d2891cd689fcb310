"""fcn-bench latency as a user runs it, on a bundle that is small enough for a stage that is slowed to stand out."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcnedge.benchmarks import cli, latency
from fcnedge.benchmarks.latency import LatencyOptions, measure_latency
from fcnedge.benchmarks.timing import stages as stages_module
from fcnedge.benchmarks.timing.stages import PARTS, STAGES, time_frame
from fcnedge.runtime import Bundle, Frame, Segmentation, Segmenter, Source, segmenter
from fcnedge.runtime.backends import OnnxRuntimeBackend
from fcnedge.runtime.errors import SourceError, UserError
from fcnedge.runtime.labels_head import LabelsHead

SLOWED_S = 0.02
KEYS = (
    *("tool", "format", "partial", "interrupted", "machine", "model", "source", "frames", "seconds", "throughput_fps"),
    *("stages", "warm_up", "drift", "outliers", "conditions", "saturated", "memory", "power", "layers"),
    *("layer_profile", "samples", "notes", "baseline"),
)


@pytest.fixture
def pictures(voc_folder) -> Path:
    """Give a folder of 11 small pictures."""
    return voc_folder / "JPEGImages"


def options(bundle: Path, source: Path, **other: Any) -> LatencyOptions:
    given = {"source": str(source), "backend": "onnxruntime", "threads": 1, "frames": 20, "duration": 0.3} | other
    return LatencyOptions(model=str(bundle), **given)


def run(*words: object) -> int:
    try:
        return cli.main(["latency", *(str(word) for word in words)])
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1


def quick(bundle: Path, source: Path) -> tuple[object, ...]:
    return "--model", bundle, "--source", source, "--backend", "onnxruntime", "--threads", 1, "--frames", 20


def slowed(function: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(SLOWED_S)
        return function(*arguments, **named)

    return slow


class Watched(Source):
    """A real source that calls `at(index)` before each frame."""

    def __init__(self, source: Source, at: Callable[[int], None]):
        super().__init__(source.uri, live=source.live, is_video=source.is_video)
        self._source, self._at, self._count = source, at, 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._source:
            self._at(self._count)
            self._count += 1
            yield frame


def watch_source(monkeypatch: pytest.MonkeyPatch, at: Callable[[int], None]) -> None:
    real = latency.open_source
    monkeypatch.setattr(latency, "open_source", lambda uri: Watched(real(uri), at))


def slow_down(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Let one stage of the real path sleep."""
    if stage == "decode":
        watch_source(monkeypatch, lambda index: time.sleep(SLOWED_S))
    elif stage == "preprocess":
        monkeypatch.setattr(segmenter, "fit_frame", slowed(segmenter.fit_frame))
    elif stage == "compute":
        monkeypatch.setattr(OnnxRuntimeBackend, "infer", slowed(OnnxRuntimeBackend.infer))
    elif stage == "head":
        monkeypatch.setattr(LabelsHead, "labels", slowed(LabelsHead.labels))
    else:
        monkeypatch.setattr(stages_module, "blend", slowed(stages_module.blend))


# What is measured


@pytest.mark.parametrize("stage", ["decode", "preprocess", "compute", "head", "overlay"])
def test_stage_that_is_slowed_shows_in_its_own_row(monkeypatch, colour_bundle, pictures, stage):
    slow_down(monkeypatch, stage)
    report = measure_latency(options(colour_bundle, pictures))
    p50 = {name: times.p50_ms for name, times in report.stages.items() if times is not None}
    assert report.stages[stage].min_ms >= 1000 * SLOWED_S
    assert report.stages["end_to_end"].min_ms >= 1000 * SLOWED_S
    assert max((name for name in PARTS if name in p50), key=lambda name: p50[name]) == stage
    inside = stage in ("preprocess", "compute", "head")
    assert (report.stages["frame_to_mask"].min_ms >= 1000 * SLOWED_S) == inside


def test_parts_add_up_to_no_more_than_the_whole(colour_bundle, pictures):
    found = measure_latency(options(colour_bundle, pictures)).samples.stages_ms
    samples = {name: np.array(values) for name, values in found.items() if values is not None}
    assert np.all(sum(samples[name] for name in PARTS if name in samples) <= samples["end_to_end"] + 0.001)
    inside = samples["preprocess"] + samples["compute"] + samples["head"]
    assert np.all(inside <= samples["frame_to_mask"] + 0.001)


def test_cpu_path_has_no_copies_to_a_device(colour_bundle, pictures):
    stages = measure_latency(options(colour_bundle, pictures)).stages
    assert tuple(stages) == STAGES
    assert [name for name, times in stages.items() if times is None] == ["h2d", "d2h"]


class GpuBackend:
    """A `FrameBackend` with times such as `FramePipeline` gives them: a copy of 0.5 ms is in preprocess_ms."""

    name, precision = "gpu", "fp32"

    def segment(self, frame: np.ndarray) -> Segmentation:
        gpu = {"upload": 1.0, "preprocess": 2.0, "network": 8.0, "labels": 0.25, "overlay": 0.125, "download": 4.0}
        return Segmentation(np.zeros(frame.shape[:2], np.uint8), 3.5, 8.0, 5.0, gpu)

    def infer(self, image: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def close(self) -> None:
        pass


def test_gpu_stages_go_into_their_rows_and_nothing_is_counted_twice(colour_bundle):
    frames = iter([Frame(np.zeros((8, 8, 3), np.uint8), "black", 0, 0.0)])
    with Segmenter(colour_bundle, GpuBackend()) as segment:
        times, _ = time_frame(frames, segment, live=False) or pytest.fail("no frame")
    row = dict(zip(STAGES, times, strict=True))
    assert (row["preprocess"], row["h2d"], row["compute"], row["d2h"], row["head"]) == (2.0, 1.5, 8.0, 4.0, 0.875)
    assert row["overlay"] >= 0.125


def test_frames_asked_for_are_frames_measured(colour_bundle, pictures):
    report = measure_latency(options(colour_bundle, pictures, frames=33, duration=None))
    assert report.frames == 33
    assert {len(values) for values in report.samples.stages_ms.values() if values is not None} == {33}
    assert len(report.samples.seconds) == 33


def test_source_shorter_than_the_run_is_read_again(colour_bundle, pictures):
    report = measure_latency(options(colour_bundle, pictures, frames=50))
    assert report.source.passes >= 5
    assert set(report.source.frame_sizes) == {"64x96", "96x64"}


def test_frames_are_scaled_to_the_size_asked_for(colour_bundle, pictures):
    report = measure_latency(options(colour_bundle, pictures, frame_size=(50, 70)))
    assert report.source.frame_sizes == ("70x50",)


def test_report_says_what_ran_and_its_hash(colour_bundle, pictures):
    model = measure_latency(options(colour_bundle, pictures, precision="fp16")).model
    files = Bundle.load(colour_bundle).manifest.files
    assert (model.name, model.backend, model.precision, model.threads) == ("colours", "onnxruntime", "fp16", 1)
    assert model.sha256 == {name: files[name].sha256 for name in ("model.fp16.data", "model.fp16.onnx")}
    assert model.input == "96x96 letterbox"


def test_saturated_mode_is_tried_with_more_workers_until_it_helps_no_more(colour_bundle, pictures):
    saturated = measure_latency(options(colour_bundle, pictures, threads=2)).saturated
    assert [(row.workers, row.threads_each) for row in saturated.rows] == [(1, 2), (2, 1)][: len(saturated.rows)]
    assert saturated.best_fps == max(row.fps for row in saturated.rows)
    assert all(row.frames > 0 for row in saturated.rows)


# The command


def test_report_is_printed_written_and_whole(capsys, tmp_path, colour_bundle, pictures):
    words = ("--json", tmp_path / "r.json", "--html", tmp_path / "r.html")
    assert run(*quick(colour_bundle, pictures), *words) == 0
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert tuple(report) == KEYS
    assert (report["tool"], report["format"], report["partial"]) == ("fcn-bench latency", 1, None)
    assert tuple(report["stages"]) == STAGES
    assert {"min_ms", "p50_ms", "p90_ms", "p99_ms", "max_ms"} <= set(report["stages"]["compute"])
    assert {layer["type"] for layer in report["layers"]} >= {"Conv", "ArgMax"}
    assert report["power"]["joules_per_frame"] is not None or report["power"]["reason"]
    out, error = capsys.readouterr()
    assert error == ""
    assert [line.split()[0] for line in out.splitlines()[1:8]] == [name for name in STAGES if report["stages"][name]]
    assert "<title>colours: latency, onnxruntime fp32</title>" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_every_key_of_the_report_is_documented(colour_bundle, pictures, tmp_path):
    assert run(*quick(colour_bundle, pictures), "--json", tmp_path / "r.json") == 0
    page = (Path(latency.__file__).parents[1] / "docs" / "latency.md").read_text(encoding="utf-8")
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    keys = {*report, *STAGES}
    for part in ("machine", "model", "source", "warm_up", "drift", "outliers", "conditions", "saturated", "memory"):
        keys |= set(report[part])
    for part in (report["power"], report["layer_profile"], report["samples"], report["layers"][0]):
        keys |= set(part)
    keys |= set(report["stages"]["compute"]) | set(report["saturated"]["rows"][0])
    assert sorted(key for key in keys if f"`{key}`" not in page) == []


def test_script_is_the_same_as_the_command(tmp_path, colour_bundle, pictures):
    words = [str(word) for word in quick(colour_bundle, pictures)]
    command = [sys.executable, latency.__file__, *words, "--json", str(tmp_path / "r.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["frames"] == 20


INTERRUPTED = """
import os, sys
from fcnedge.benchmarks import cli
from fcnedge.benchmarks.timing import stream_mode

number, frame, *words = sys.argv[1:]
real, calls = stream_mode.time_frame, []

def time_frame(*arguments, **named):
    calls.append(1)
    if len(calls) > int(frame):
        os.kill(os.getpid(), int(number))
    return real(*arguments, **named)

stream_mode.time_frame = time_frame
sys.exit(cli.main(["latency", *words]))
"""
"""Signals itself before a frame. In a process of its own: in pytest's, where faulthandler has given signals a stack of
their own, a signal after OpenVINO has run ends in a segmentation fault."""


def interrupted(number: int, frame: int, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", INTERRUPTED, *map(str, (int(number), frame, *words))]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_interrupt_tells_what_was_measured(tmp_path, colour_bundle, pictures, number, code, word):
    words = ("--json", tmp_path / "r.json", "--html", tmp_path / "r.html", "--duration", 600)
    done = interrupted(number, 90, *quick(colour_bundle, pictures)[:-2], *words)
    assert (done.returncode, done.stderr) == (code, f"fcn-bench latency: {word}.\n")
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert report["interrupted"] is True
    assert report["frames"] + report["warm_up"]["frames"] == 90
    assert report["partial"] == f"interrupted after {report['frames']} frames"
    assert report["stages"]["compute"]["frames"] == report["frames"]
    assert (report["saturated"], report["layers"]) == (None, [])
    assert "Partial: interrupted after" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert report["partial"] in done.stdout


def test_interrupt_before_the_first_frame_leaves_no_report(tmp_path, colour_bundle, pictures):
    done = interrupted(signal.SIGINT, 0, *quick(colour_bundle, pictures), "--json", tmp_path / "r.json")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "fcn-bench latency: interrupted.\n")
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--threads", "0"), "--threads is 0; it must be from 1 to "),
        (("--frames", "0"), "--frames is 0; it must be 1 or more."),
        (("--duration", "-1"), "--duration is -1.0; it must be seconds above 0."),
        (("--duration", "inf"), "--duration is inf; it must be seconds above 0."),
        (("--baseline", "gone.json", "--frames", "9"), "--frames is 9; a comparison with --baseline needs 10 or more."),
        (("--force",), "--force is for a comparison; name a report with --baseline."),
        (("--json", "."), ". is a folder; choose the name of a file for --json."),
        (("--source", "gone.mp4"), "gone.mp4 does not exist"),
        (("--size", "64x64"), "takes 96x96, --size asks for 64x64; a bundle's size is fixed: build one of that size"),
        (("--precision", "int8"), "holds no int8 graph, only fp32 and fp16; "),
        (("--baseline", "gone.json"), "the baseline gone.json cannot be read (No such file or directory)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistake_is_one_line_and_exit_2(capsys, tmp_path, monkeypatch, colour_bundle, pictures, words, complaint):
    monkeypatch.chdir(tmp_path)
    assert run(*quick(colour_bundle, pictures), *words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert complaint in line


def test_source_that_fails_in_mid_run_tells_what_was_measured(capsys, tmp_path, monkeypatch, colour_bundle, pictures):
    def fail(index: int) -> None:
        if index == 70:
            raise SourceError("the camera is gone; plug it in again.")

    watch_source(monkeypatch, fail)
    assert run(*quick(colour_bundle, pictures)[:-2], "--json", tmp_path / "r.json") == 2
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert report["interrupted"] is False
    assert report["partial"] == f"the camera is gone; plug it in again after {report['frames']} frames"
    assert report["frames"] + report["warm_up"]["frames"] == 70
    assert capsys.readouterr().err.startswith("fcn-bench latency: the run ended before its time: the camera is gone; ")


def test_source_is_looked_for_before_a_bundle_is_built(monkeypatch, tmp_path):
    monkeypatch.setattr(latency, "measured_bundle", lambda *names: pytest.fail("a bundle was built"))
    with pytest.raises(SourceError, match=r"does not exist$"):
        measure_latency(LatencyOptions(source=str(tmp_path / "gone.mp4")))


@pytest.mark.slow
def test_cameras_waits_are_in_no_stage(colour_bundle):
    """Five seconds of a camera of 15 frames per second."""
    source = "demo://camera"
    report = measure_latency(LatencyOptions(str(colour_bundle), "onnxruntime", source=source, threads=1, frames=5))
    assert (report.source.live, report.source.passes, report.stages["decode"]) == (True, 1, None)
    samples = {name: np.array(values) for name, values in report.samples.stages_ms.items() if values is not None}
    assert np.allclose(samples["end_to_end"], samples["frame_to_mask"] + samples["overlay"], atol=0.001)


def test_source_without_frames_is_refused(colour_bundle, monkeypatch, pictures):
    class Empty(Watched):
        def __iter__(self) -> Iterator[Frame]:
            return iter(())

    real = latency.open_source
    monkeypatch.setattr(latency, "open_source", lambda uri: Empty(real(uri), lambda index: None))
    with pytest.raises(UserError, match=r"gives no frames, so there is nothing to time; choose another\.$"):
        measure_latency(options(colour_bundle, pictures))


# Baselines


@pytest.fixture
def baseline(tmp_path, colour_bundle, pictures) -> Path:
    """Give a report of the colour bundle on this machine."""
    assert run(*quick(colour_bundle, pictures), "--json", tmp_path / "old.json") == 0
    return tmp_path / "old.json"


def test_regression_is_exit_3_and_its_stage_is_named(capsys, tmp_path, monkeypatch, colour_bundle, pictures, baseline):
    slow_down(monkeypatch, "compute")
    words = (*quick(colour_bundle, pictures), "--baseline", baseline, "--json", tmp_path / "new.json")
    assert run(*words, "--html", tmp_path / "new.html") == 3
    found = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))["baseline"]
    assert found["regression"] is True
    verdicts = {row["stage"]: row["verdict"] for row in found["rows"]}
    assert {verdicts[name] for name in ("compute", "frame_to_mask", "end_to_end")} == {"slower"}
    assert "regression of frame_to_mask and end_to_end by more than 5%" in capsys.readouterr().out
    assert "Against the baseline" in (tmp_path / "new.html").read_text(encoding="utf-8")


def test_faster_run_is_no_regression(tmp_path, monkeypatch, colour_bundle, pictures):
    with monkeypatch.context() as slow:
        slow_down(slow, "compute")
        assert run(*quick(colour_bundle, pictures), "--json", tmp_path / "old.json") == 0
    words = (*quick(colour_bundle, pictures), "--baseline", tmp_path / "old.json", "--json", tmp_path / "new.json")
    assert run(*words) == 0
    found = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))["baseline"]
    assert {row["verdict"] for row in found["rows"] if row["stage"] in ("compute", "end_to_end")} == {"faster"}


def test_other_machine_is_refused_before_anything_is_timed(capsys, monkeypatch, colour_bundle, pictures, baseline):
    report = json.loads(baseline.read_text(encoding="utf-8"))
    report["machine"]["cpu"] = "Cortex-A78AE"
    baseline.write_text(json.dumps(report), encoding="utf-8")
    watch_source(monkeypatch, lambda index: pytest.fail("a frame was read"))
    capsys.readouterr()
    assert run(*quick(colour_bundle, pictures), "--baseline", baseline) == 2
    error = capsys.readouterr().err
    assert "old.json cannot be compared with this run, for they differ in machine cpu: Cortex-A78AE, now " in error
    assert error.endswith("or compare all the same with --force.\n")


def test_other_precision_is_refused_and_compared_when_forced(capsys, colour_bundle, pictures, baseline):
    words = (*quick(colour_bundle, pictures), "--precision", "fp16", "--baseline", baseline)
    assert run(*words) == 2
    assert "differ in model precision: fp32, now fp16; model hash: " in capsys.readouterr().err
    assert run(*words, "--force") in (0, 3)
    assert "not the same: model precision: fp32, now fp16" in capsys.readouterr().out
