"""fcn-run: what it writes, what it says, and one line with exit 2 for everything that is wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from fcnedge.runtime.cli import main

BLUE, RED = (255, 0, 0), (0, 0, 255)
needs_demo = pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="the extra demo is not installed")


@pytest.fixture
def picture(tmp_path) -> Path:
    """(60, 80) pixels: the upper half blue, the lower half red."""
    image = np.full((60, 80, 3), BLUE, np.uint8)
    image[30:] = RED
    return write(tmp_path / "ball.png", image)


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "shots"
    folder.mkdir()
    for number, colour in ((2, BLUE), (10, RED), (1, (0, 0, 0))):
        write(folder / f"img{number}.png", np.full((20, 30, 3), colour, np.uint8))
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def clip(tmp_path) -> Path:
    return write_clip(tmp_path / "clip.avi", 12)


def write(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None, f"{path} was not written"
    return image


def write_clip(path: Path, frames: int) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (64, 48))
    assert writer.isOpened()
    for shift in range(frames):
        writer.write(np.roll(noise, shift, axis=1))
    writer.release()
    return path


def fcn_run(*words: object, backend: str = "fake") -> int:
    return main(["--backend", backend, *map(str, words)])  # the last of two counts


def in_its_own_process(*words: object, backend: str = "fake", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fcnedge.runtime.cli", *map(str, words), "--backend", backend]
    settings: dict[str, Any] = {"cwd": Path(__file__).parent, "env": {**os.environ, **environment}}
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)


def mask_of(path: Path) -> np.ndarray:
    with Image.open(path) as mask:
        assert mask.mode == "P"
        return np.asarray(mask)


# What it does


@pytest.mark.parametrize("backend", ["fake", "onnxruntime"])
def test_picture_into_a_folder(tmp_path, tiny_bundle, picture, capsys, backend):
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    out = tmp_path / "out"
    assert fcn_run(picture, f"{out}/", "--model", tiny_bundle, "--json", tmp_path / "r.json", backend=backend) == 0
    mask = mask_of(out / "masks" / "ball.png")
    assert mask.shape == (60, 80)
    assert (mask[:25] == 1).all()
    assert (mask[35:] == 4).all()
    assert read(out / "overlays" / "ball.jpg").shape == (60, 80, 3)
    result = json.loads((tmp_path / "r.json").read_text())
    blue, red = (np.count_nonzero(mask == each) / mask.size for each in (1, 4))
    assert result["classes"]["blue"] == pytest.approx(blue)
    assert result["classes"]["red"] == pytest.approx(red)
    assert sum(result["classes"].values()) == pytest.approx(1)
    assert (result["backend"], result["precision"], result["model"]) == (backend, "fp32", "tiny")
    (source,) = result["sources"]
    assert source == {"uri": str(picture), "frames": 1, "skipped_files": 0, "warning": None, "live": None}
    assert (result["sink"], result["frames"]) == (f"{out}/", 1)
    assert result["frames_per_second"] == pytest.approx(1 / result["seconds"])
    assert set(result["stages"]) == {"preprocess", "infer", "head", "overlay", "total"}
    for times in result["stages"].values():
        assert 0 <= times["p50_ms"] <= times["p90_ms"] <= times["max_ms"]
    shown, errors = capsys.readouterr()
    assert errors == ""
    assert f"1 frame with tiny ({backend} fp32)" in shown
    assert f"written to {out}/" in shown


def test_folder_of_pictures_in_natural_order(tmp_path, tiny_bundle, pictures, capsys):
    out = tmp_path / "out"
    assert fcn_run(pictures, out, "--model", tiny_bundle, "--json", tmp_path / "r.json") == 0
    found = {path.stem: set(np.unique(mask_of(path))) for path in (out / "masks").iterdir()}
    assert found == {"img1": {0}, "img2": {1}, "img10": {4}}
    assert json.loads((tmp_path / "r.json").read_text())["sources"][0]["skipped_files"] == 1
    assert capsys.readouterr().err == "fcn-run: files passed over because they are no pictures: 1\n"


def test_glob_of_pictures(tmp_path, tiny_bundle, pictures):
    assert fcn_run(pictures / "img1*.png", tmp_path / "out", "--model", tiny_bundle) == 0
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == ["img1.png", "img10.png"]


def test_video_into_a_video(tmp_path, tiny_bundle, clip):
    assert fcn_run(clip, tmp_path / "out.avi", "--model", tiny_bundle, "--json", tmp_path / "r.json") == 0
    capture = cv2.VideoCapture(str(tmp_path / "out.avi"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert capture.get(cv2.CAP_PROP_FPS) == 20
    assert json.loads((tmp_path / "r.json").read_text())["frames"] == 12


def test_frames_stops_after_so_many(tmp_path, tiny_bundle, clip):
    assert fcn_run(clip, tmp_path / "out", "--model", tiny_bundle, "--frames", 3) == 0
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 3


@pytest.mark.parametrize("sink", [[], ["null://"]])
def test_null_writes_nothing(tmp_path, tiny_bundle, picture, sink, monkeypatch, capsys):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert fcn_run(picture, *sink, "--model", tiny_bundle) == 0
    assert list(Path().iterdir()) == []
    assert "written to" not in capsys.readouterr().out


@needs_demo
def test_demonstration_photographs(tiny_bundle, capsys):
    assert fcn_run("demo://", "--model", tiny_bundle) == 0
    assert "frames with tiny" in capsys.readouterr().out


@needs_demo
def test_demonstration_clip(tiny_bundle, tmp_path):
    assert fcn_run("demo://clip", "--model", tiny_bundle, "--frames", 2, "--json", tmp_path / "r.json") == 0
    assert json.loads((tmp_path / "r.json").read_text())["frames"] == 2


@pytest.mark.parametrize("alpha", [0, 1])
def test_alpha_goes_from_frame_only_to_colour_only(tmp_path, tiny_bundle, picture, alpha):
    out = tmp_path / "out.png"
    assert fcn_run(picture, out, "--model", tiny_bundle, "--alpha", alpha, "--no-legend") == 0
    overlay, frame = read(out), read(picture)
    voc = {1: (0, 0, 128), 4: (128, 0, 0)}  # VOC's colours of class 1 and 4, BGR
    assert (overlay[:25] == (voc[1] if alpha else frame[:25])).all()
    assert (overlay[35:] == (voc[4] if alpha else frame[35:])).all()


def test_legend_can_be_left_out(tmp_path, tiny_bundle, picture):
    for name, more in (("with.png", []), ("without.png", ["--no-legend"])):
        assert fcn_run(picture, tmp_path / name, "--model", tiny_bundle, *more) == 0
    differs = read(tmp_path / "with.png") != read(tmp_path / "without.png")
    assert differs[-5:].any()
    assert not differs[:20].any()


def test_background_is_neither_painted_nor_in_the_legend(tmp_path, tiny_bundle):
    frame = np.full((60, 80, 3), (90, 80, 70), np.uint8)
    assert fcn_run(write(tmp_path / "dull.png", frame), tmp_path / "out.png", "--model", tiny_bundle) == 0
    assert (read(tmp_path / "out.png") == frame).all()


def test_sink_may_stand_after_the_options(tmp_path, tiny_bundle, picture):
    assert main([str(picture), "--model", str(tiny_bundle), "--backend", "fake", f"{tmp_path}/out/"]) == 0
    assert (tmp_path / "out" / "masks" / "ball.png").is_file()


# Live sources


CAMERA = """
import itertools, signal, sys, time
import numpy as np
from fcnedge.runtime import cli
from fcnedge.runtime.run import session
from fcnedge.runtime.sources.frame import Frame, Source

class Camera(Source):
    def __iter__(self):
        for index in itertools.count():
            yield Frame(np.full((20, 30, 3), (255, 0, 0), np.uint8), f"camera_{index:06d}", index, time.monotonic())
            if signals and index >= 4 and written:
                signal.raise_signal(signals.pop())
            if self.live:
                time.sleep(0.02)

def add(tally, result, drawn_ms, add=session.Tally.add):
    add(tally, result, drawn_ms)
    written.append(result.sequence)

signals, written = [int(word) for word in sys.argv[1:2] if word != "0"], []
session.Tally.add = add
session.open_named = lambda *_: Camera("camera", live=sys.argv[2] == "live", is_video=True, fps=20.0)
code = cli.main(sys.argv[3:])
print("written", len(written), written == sorted(written), file=sys.stderr)
sys.exit(code)
"""
"""After five frames, and once a result was written, somebody ends the run; in a process of its own, which a lost signal
would never end: neither source has an end."""


def camera_run(end: signal.Signals, kind: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CAMERA, str(int(end)), kind, "camera", *map(str, words), "--backend", "fake"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_camera_ended_by_a_signal_reports_and_is_exit_0(tmp_path, tiny_bundle, end):
    done = camera_run(end, "live", tmp_path / "out.mp4", "--model", tiny_bundle, "--json", tmp_path / "r.json")
    assert done.returncode == 0
    result = json.loads((tmp_path / "r.json").read_text())
    frames, live = result["frames"], result["sources"][0]["live"]
    assert done.stderr == f"written {frames} True\n"
    assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == frames
    assert live["captured"] >= 5
    assert live["captured"] == live["dropped"] + frames
    assert (live["connections"], set(live["age"])) == (1, {"p50_ms", "p90_ms", "max_ms"})
    assert set(result["stages"]) == {"preprocess", "infer", "head", "overlay", "total"}
    assert "with tiny" in done.stdout
    assert f"camera   {live['captured']} frames, {live['dropped']} dropped, " in done.stdout


def test_camera_is_shown_on_a_live_page_until_somebody_ends_it(tiny_bundle):
    words = ["0", "live", "camera", "http://127.0.0.1:0", "--model", str(tiny_bundle), "--backend", "fake"]
    with subprocess.Popen([sys.executable, "-c", CAMERA, *words], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        address = run.stdout.readline().removeprefix("live page: ").strip()
        status = {}
        for _ in range(5_000):
            with urllib.request.urlopen(f"{address.rstrip('/')}/status.json", timeout=30) as answer:
                status = json.load(answer)
            if status["sources"] and status["sources"][0]["shares"]:  # a result was shown
                break
        run.send_signal(signal.SIGTERM)
        rest = run.communicate(timeout=60)[0]
    assert status["model"] == "tiny · fake fp32"
    assert [source["uri"] for source in status["sources"]] == ["camera"]
    assert run.returncode == 0
    assert f"written to {words[3]}" in rest


def test_token_is_for_the_live_page(capsys, tiny_bundle, picture, tmp_path):
    line = refused(capsys, picture, tmp_path / "out", "--model", tiny_bundle, "--token", "x" * 20)
    assert "--token is for the live page" in line


@pytest.mark.parametrize(("end", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_film_ended_by_a_signal_is_interrupted_and_keeps_its_frames(tmp_path, tiny_bundle, end, code):
    done = camera_run(end, "film", tmp_path / "out.mp4", "--model", tiny_bundle, "--json", tmp_path / "r.json")
    assert (done.returncode, done.stdout) == (code, "")
    said, counted = done.stderr.splitlines()
    assert said == f"fcn-run: {'interrupted' if code == 130 else 'terminated'}."
    held = int(cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT))
    assert counted == f"written {held} True"
    assert not (tmp_path / "r.json").exists()


# What it refuses: exit 2, one line on standard error, nothing on standard output


def one_line(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 2, process.stderr
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert line.startswith("fcn-run: ")
    return line


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """As `one_line`, in this process: for what is refused before any library can speak past sys.stderr."""
    try:
        code = fcn_run(*words)
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    shown, errors = capsys.readouterr()
    assert shown == ""
    (line,) = errors.splitlines()
    return line.removeprefix("fcn-run: ")


def test_missing_model_says_how_to_build_one(tmp_path, picture, capsys):
    line = refused(capsys, picture, "--model", tmp_path / "none")
    assert line == (
        f"there is no bundle at {tmp_path / 'none'}; build one with: fcn-build model fcn8s-lite0-voc "
        f"-o {tmp_path / 'none'}"
    )


def test_damaged_model_is_refused(tiny_bundle, picture, capsys):
    with (tiny_bundle / "model.fp32.onnx").open("ab") as file:
        file.write(b"x")
    assert "copy the bundle again" in refused(capsys, picture, "--model", tiny_bundle)
    (tiny_bundle / "model.json").write_text("{")
    assert "model.json is not valid JSON" in refused(capsys, picture, "--model", tiny_bundle)


def test_missing_source_is_refused(tmp_path, tiny_bundle, capsys):
    assert refused(capsys, tmp_path / "a\nb.jpg", "--model", tiny_bundle) == f"{tmp_path}/a b.jpg does not exist"


def test_empty_folder_is_refused(tmp_path, tiny_bundle, capsys):
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in refused(capsys, tmp_path / "empty", "--model", tiny_bundle)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--alpha", "1.5"], "--alpha is 1.5; it must lie between 0"),
        (["--alpha", "-0.1"], "--alpha is -0.1; it must lie between 0"),
        (["--alpha", "nan"], "--alpha is nan; it must lie between 0"),
        (["--threads", "0"], "--threads is 0; it must be from 1 to 1024."),
        (["--threads", "9" * 20], f"--threads is {'9' * 20}; it must be from 1 to 1024."),
        (["--frames", "0"], "--frames is 0; it must be 1 or more."),
        (["--precision", "int8", "--backend", "onnxruntime"], "holds no int8 graph, only fp32"),
        (["--backend", "abacus"], "invalid choice: 'abacus'"),
        (["--quick"], "unrecognized arguments: --quick. See fcn-run --help."),
        (["--prec", "fp32"], "unrecognized arguments: --prec"),
        (["ftp://robot/out"], "does not write to ftp://"),
        (["out.gif"], "has an ending that cannot be written"),
    ],
)
def test_wrong_words_are_refused(tiny_bundle, picture, capsys, words, reason):
    pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    assert reason in refused(capsys, picture, "--model", tiny_bundle, *words)


def test_source_is_required(capsys):
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the following arguments are required: SOURCE" in line


def test_sink_that_cannot_be_written_is_refused(tmp_path, tiny_bundle, picture, capsys):
    (tmp_path / "file").write_text("in the way")
    assert "cannot be made" in refused(capsys, picture, f"{tmp_path}/file/out/", "--model", tiny_bundle)
    (tmp_path / "out.png").mkdir()
    (tmp_path / "out.png" / "masks").write_text("in the way")
    assert "cannot be made" in refused(capsys, picture, tmp_path / "out.png", "--model", tiny_bundle)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody may write to, as Linux's /proc")
@pytest.mark.parametrize("name", ["out.avi", "out.png"])
def test_sink_on_a_medium_that_takes_nothing_is_one_line(tiny_bundle, picture, name):
    line = one_line(in_its_own_process(picture, f"/proc/{name}", "--model", tiny_bundle))
    assert f"/proc/{name} cannot be written" in line


def test_json_that_cannot_be_written_is_told_after_the_report(tmp_path, tiny_bundle, picture, capsys):
    assert fcn_run(picture, "--model", tiny_bundle, "--json", tmp_path) == 2
    shown, errors = capsys.readouterr()
    assert "1 frame with " in shown
    assert errors == f"fcn-run: {tmp_path} cannot be written (Is a directory); choose another place for --json.\n"


def damaged_png(path: Path) -> Path:
    """Whole at both ends, nonsense in the middle: libpng speaks to file descriptor 2 by itself."""
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    data = bytearray(write(path, noise).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(range(200))
    path.write_bytes(data)
    return path


def test_damaged_picture_is_one_line_whatever_libpng_says(tmp_path, tiny_bundle):
    path = damaged_png(tmp_path / "bad.png")
    said = subprocess.run(
        [sys.executable, "-c", f"import cv2; cv2.imread({str(path)!r})"], capture_output=True, text=True, check=True
    )
    assert "libpng" in said.stderr, "the picture is damaged in a way that libpng does not mind"
    assert f"{path} is damaged" in one_line(in_its_own_process(path, "--model", tiny_bundle))


@pytest.mark.parametrize("sink", ["out", "out.avi", "null://", None])
def test_picture_that_ends_the_run_comes_with_what_was_written_before(tmp_path, tiny_bundle, pictures, sink, capsys):
    data = (pictures / "img10.png").read_bytes()
    (pictures / "img10.png").write_bytes(data[: len(data) // 2])
    where = [] if sink is None else [sink if "://" in sink else tmp_path / sink]
    line = refused(capsys, pictures, *where, "--model", tiny_bundle)
    damage = f"{pictures / 'img10.png'} is truncated: it lacks PNG's IEND chunk; copy it again"
    written = f"; 2 frames before it were written to {where[0]}" if sink in ("out", "out.avi") else ""
    assert line == damage + written
    if sink == "out":
        assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == ["img1.png", "img2.png"]
    if sink == "out.avi":
        assert cv2.VideoCapture(str(tmp_path / "out.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == 2


def test_first_picture_that_ends_the_run_has_nothing_written_before(tmp_path, tiny_bundle, pictures, capsys):
    with (pictures / "img1.png").open("ab") as file:
        file.truncate(60)
    assert "written" not in refused(capsys, pictures, tmp_path / "out", "--model", tiny_bundle)


def test_pictures_of_two_sizes_in_one_film_say_how_much_of_it_there_is(tmp_path, tiny_bundle, pictures, capsys):
    write(pictures / "img2.png", np.zeros((40, 40, 3), np.uint8))
    film = tmp_path / "out.avi"
    assert refused(capsys, pictures, film, "--model", tiny_bundle) == (
        f"{film} is 30x20, but img2 is 40x40; a video has one size: name a folder instead; 1 frame before it was "
        f"written to {film}"
    )


def test_folder_of_pictures_is_not_written_into(tmp_path, tiny_bundle, pictures, capsys):
    before = sorted(pictures.iterdir())
    assert refused(capsys, pictures, pictures, "--model", tiny_bundle) == (
        f"{pictures} is the source itself; write into a folder of its own, such as {pictures / 'out'}"
    )
    assert sorted(pictures.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("notes.png", b"buy milk\n" * 100, "is not a picture that OpenCV can read"),
        ("notes.txt", b"buy milk\n" * 100, "it looks like text"),
        ("half.jpg", b"\xff\xd8\xff\xe0" + bytes(100), "is truncated"),
        ("empty.mp4", b"", "is empty: it has 0 bytes"),
        ("noise.mp4", bytes(range(256)) * 50, "neither a picture nor a video"),
        ("head.mp4", b"\0hello" * 1000, "neither a picture nor a video"),
    ],
)
def test_file_that_is_no_picture_or_video_is_one_line(tmp_path, tiny_bundle, name, data, reason):
    (tmp_path / name).write_bytes(data)
    assert reason in one_line(in_its_own_process(tmp_path / name, "--model", tiny_bundle))


def test_libraries_may_speak_when_asked_to(tmp_path, tiny_bundle):
    """What the user sets is left as it is: FFmpeg says more about the file than we can."""
    (tmp_path / "head.mp4").write_bytes(b"\0hello" * 1000)
    loud = in_its_own_process(tmp_path / "head.mp4", "--model", tiny_bundle, OPENCV_FFMPEG_LOGLEVEL="16")
    assert loud.returncode == 2
    assert "moov atom not found" in loud.stdout  # where OpenCV lets FFmpeg speak


def test_damaged_graph_is_one_line_whatever_onnxruntime_says(tmp_path, write_bundle, picture):
    pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    import onnx

    model = onnx.load(write_bundle(tmp_path / "good") / "model.fp32.onnx")
    model.graph.node[0].op_type = "Transmogrify"
    bundle = write_bundle(tmp_path / "bad", files={"model.fp32.onnx": model.SerializeToString()})
    line = one_line(in_its_own_process(picture, "--model", bundle, backend="onnxruntime"))
    assert "cannot run" in line
    assert "Transmogrify" in line


# What goes on with a warning


def test_video_that_breaks_off_gives_its_frames_a_warning_and_exit_0(tmp_path, tiny_bundle, clip):
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) * 6 // 10])
    done = in_its_own_process(clip, tmp_path / "out", "--model", tiny_bundle, "--json", tmp_path / "r.json")
    assert done.returncode == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert 3 < result["frames"] < 11
    assert len(list((tmp_path / "out" / "masks").iterdir())) == result["frames"]
    warning = result["sources"][0]["warning"]
    assert warning == f"clip.avi promised 12 frames but ended after {result['frames']}"
    assert done.stderr == f"fcn-run: {warning}\n"
    assert f"{result['frames']} frames with tiny" in done.stdout


def test_picture_that_libjpeg_could_still_decode_is_named(tmp_path, tiny_bundle):
    """libjpeg does not say which of a thousand files it speaks of."""
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.jpg", noise)
    data = write(tmp_path / "in" / "b.jpg", noise).read_bytes()
    (tmp_path / "in" / "b.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    done = in_its_own_process(tmp_path / "in", tmp_path / "out", "--model", tiny_bundle)
    assert done.returncode == 0
    assert done.stderr.startswith("fcn-run: b: ")
    assert done.stderr.count("\n") == 1
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 2


def test_folder_name_that_is_not_utf8_is_written_and_shown(tmp_path, tiny_bundle, picture):
    out = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    try:
        Path(out).mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    done = in_its_own_process(picture, out, "--model", tiny_bundle, "--json", tmp_path / "r.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "r.json").read_bytes())["sink"] == out
