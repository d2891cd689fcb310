"""A real node in a process of its own, real messages over real middleware: masks, headers, refusals, parameters, drops.

It needs a Python with rclpy: that of the tests, or the one that FCNEDGE_ROS_PYTHON names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from fcnedge.runtime import Segmenter, blend, colorize
from fcnedge.runtime.demo import demo_pictures

PEER = Path(__file__).with_name("peer.py")
NEEDED = "import rclpy, rmw_implementation, sensor_msgs.msg, diagnostic_msgs.msg, cv2, fcnedge.runtime"
NODE = """
import sys, time
from fcnedge.runtime.ros2 import command, node
read = node.frame_from_image
def frame_from_image(message):
    {work}
    return read(message)
node.frame_from_image = frame_from_image
sys.exit(command.main())
"""
"""The node with more work to do on each image."""
# The same Python, for its ONNX Runtime may be another release than that of the tests.
REFERENCE = """
import sys
import numpy as np
from fcnedge.runtime import Segmenter
bundle, frames, masks = sys.argv[1:]
with Segmenter(bundle, "onnxruntime", "fp32") as segment:
    np.savez(masks, *[segment(frame) for frame in np.load(frames).values()])
"""


class Run(NamedTuple):
    """What the peer wrote down. pictures: by "STAMP.TOPIC"; log: what the node printed."""

    answers: list[dict[str, Any]]
    pictures: dict[str, np.ndarray]
    exit_code: int
    log: str


@pytest.fixture(scope="module")
def ros_python() -> str:
    named = os.environ.get("FCNEDGE_ROS_PYTHON")
    python = named or sys.executable
    done = subprocess.run([python, "-c", NEEDED], capture_output=True, text=True, check=False, env=environment())
    if done.returncode:
        reason = f"{python} cannot run a ROS 2 node: {(done.stderr.splitlines() or ['no word'])[-1]}"
        assert not named, f"FCNEDGE_ROS_PYTHON: {reason}"
        pytest.skip(f"{reason}; source a ROS 2 installation, or set FCNEDGE_ROS_PYTHON")
    return python


@pytest.fixture(scope="module")
def tiny(write_bundle, tmp_path_factory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("ros") / "tiny")


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    pytest.importorskip("skimage", reason="the extra demo is not installed")
    return [picture.image for picture in demo_pictures()]


def environment(folder: Path | None = None) -> dict[str, str]:
    """A ROS domain on this machine only, for this process's nodes, whose log files go to `folder`."""
    settings = {"ROS_DOMAIN_ID": str(1 + os.getpid() % 100), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    settings["FASTDDS_BUILTIN_TRANSPORTS"] = "LARGE_DATA"  # with Kilted's defaults most large images are lost
    return {**os.environ, **settings, **({"ROS_LOG_DIR": str(folder)} if folder else {})}


def run(
    python: str, folder: Path, steps: list[dict], pixels: dict[str, np.ndarray], parameters: dict, work: str = ""
) -> Run:
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    node = [python, *(["-c", NODE.format(work=work)] if work else ["-m", "fcnedge.runtime.ros2"]), "--ros-args", *words]
    (folder / "script.json").write_text(json.dumps(steps), encoding="utf-8")
    np.savez(folder / "pixels.npz", **pixels)
    done = subprocess.run(
        [python, str(PEER), str(folder), "--", *node],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=folder,
        env=environment(folder),
    )
    log = (folder / "node.log").read_text(encoding="utf-8") if (folder / "node.log").exists() else ""
    assert done.returncode == 0, done.stderr + log
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert "failure" not in result, f"{result['failure']}\n{log}"
    with np.load(folder / "pictures.npz") as pictures:
        return Run(result["answers"], dict(pictures), result["exit_code"], log)


def image(pixels: str, data: np.ndarray, encoding: str, stamp: int, padding: int = 0) -> tuple[dict, np.ndarray]:
    """The step that sends `data` (H, W, …) uint8, and its bytes with `padding` more at the end of each row."""
    rows = data.reshape(data.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    step = {"do": "send", "pixels": pixels, "encoding": encoding, "stamp": stamp, "step": rows.shape[1]}
    return {**step, "height": data.shape[0], "width": data.shape[1]}, rows


class Conversation(NamedTuple):
    run: Run
    sent: dict[int, np.ndarray]
    """(H, W, 3) uint8 BGR of each picture that was sent and was in order, by its stamp."""
    last_alpha: int
    """Stamp of the picture that was sent after the look was changed."""


@pytest.fixture(scope="module")
def conversation(ros_python, tiny, photographs, tmp_path_factory) -> Conversation:
    """Everything that one node is asked, in one go: starting it takes a second."""
    steps, pixels, sent = [], {}, {}

    def add(step: dict, data: np.ndarray, frame: np.ndarray | None = None) -> None:
        pixels[step["pixels"]] = data
        steps.append(step)
        if frame is not None:
            sent[step["stamp"]] = frame

    bgr = photographs[0]
    grey = cv2.cvtColor(photographs[2], cv2.COLOR_BGR2GRAY)
    rgba = cv2.cvtColor(photographs[3], cv2.COLOR_BGR2RGBA)
    for number, (encoding, data, frame, padding) in enumerate(
        [
            ("bgr8", bgr, bgr, 0),
            ("rgb8", photographs[1][:, :, ::-1], photographs[1], 5),
            ("mono8", grey, cv2.merge([grey] * 3), 3),
            ("rgba8", rgba, photographs[3], 0),
            ("bgra8", rgba[:, :, [2, 1, 0, 3]], photographs[3], 8),
        ]
    ):
        step, rows = image(encoding, data, encoding, 100 + number, padding)
        add({**step, "frame_id": f"camera_{number}", "nanosec": 7 + number}, rows, frame)
    png, jpeg = cv2.imencode(".png", bgr)[1], cv2.imencode(".jpg", photographs[1])[1]
    add({"do": "send", "pixels": "png", "format": "png", "stamp": 120}, png, bgr)
    add({"do": "send", "pixels": "jpeg", "format": "jpeg", "stamp": 121}, jpeg, cv2.imdecode(jpeg, 1))
    good, rows = image("bgr8", bgr, "bgr8", 130)
    add({**good, "do": "refuse", "step": good["step"] - 1, "expected": "step"}, rows)
    add({**good, "do": "refuse", "encoding": "bayer_rggb8", "expected": "encoding"}, rows)
    add({"do": "refuse", "pixels": "half", "format": "jpeg", "stamp": 131, "expected": "truncated"}, jpeg[:2000])
    add({**good, "stamp": 140}, rows, bgr)
    settings = ({"alpha": 1}, {"alpha": 1.5}, {"model": "other"}, {"ignore_classes": ["unknown"]})
    settings = (*settings, {"ignore_classes": [3, 4]}, {"ignore_classes": ["white", "2"]})
    steps += [{"do": "set", "values": values} for values in settings]
    add({**good, "stamp": 141}, rows, bgr)
    steps.append({"do": "report"})
    parameters = {"model": tiny, "backend": "fake", "alpha": 0.25}
    return Conversation(run(ros_python, tmp_path_factory.mktemp("talk"), steps, pixels, parameters), sent, 141)


def answers(conversation: Conversation, kind: str) -> list[dict]:
    return [each for each in conversation.run.answers if kind in each]


def test_masks_are_those_of_the_segmenter_for_every_encoding_and_padding(conversation, tiny) -> None:
    with Segmenter(tiny, "fake") as segment:
        for stamp, frame in conversation.sent.items():
            np.testing.assert_array_equal(conversation.run.pictures[f"{stamp}.mask"], segment(frame))
    assert len({conversation.run.pictures[f"{stamp}.mask"].tobytes() for stamp in conversation.sent}) > 4


def test_colours_and_overlays_are_those_of_the_mask_and_the_picture(conversation, tiny) -> None:
    with Segmenter(tiny, "fake") as segment:
        palette = segment.palette
    for stamp, frame in conversation.sent.items():
        mask, overlay = (conversation.run.pictures[f"{stamp}.{name}"] for name in ("mask", "overlay"))
        np.testing.assert_array_equal(conversation.run.pictures[f"{stamp}.color"], colorize(mask, palette))
        changed = stamp == conversation.last_alpha
        look = {"alpha": 1.0, "ignore": (7, 2)} if changed else {"alpha": 0.25, "ignore": (0,)}
        np.testing.assert_array_equal(overlay, blend(frame, mask, palette, **look))


def test_headers_are_carried_over_and_the_fields_describe_the_pixels(conversation) -> None:
    for number, answer in enumerate(answers(conversation, "mask")[:5]):
        width = conversation.sent[100 + number].shape[1]
        assert answer["mask"] == ["mono8", width, f"camera_{number}", 7 + number]
        assert answer["color"] == answer["overlay"] == ["bgr8", 3 * width, f"camera_{number}", 7 + number]


def test_wrong_images_are_refused_in_one_sentence_and_the_next_goes_on(conversation) -> None:
    refusals = answers(conversation, "message")[:-1]  # the last is of the step "report"
    assert [each["level"] for each in refusals] == [1, 1, 1]
    assert "a step of 1535 bytes, but a row of 512 pixels in bgr8 needs 1536" in refusals[0]["message"]
    assert "encoding 'bayer_rggb8'; fcnedge takes bgr8, rgb8, mono8" in refusals[1]["message"]
    assert "truncated" in refusals[2]["message"]
    assert "140.mask" in conversation.run.pictures
    assert conversation.run.log.count("[WARN]") >= 1, "the log tells of them too"
    assert "step of 1535 bytes" in conversation.run.log
    assert "Traceback" not in conversation.run.log


def test_parameters_are_checked_when_they_change(conversation) -> None:
    alpha, wide, model, unknown, numbers, names = answers(conversation, "successful")
    assert alpha["successful"]
    assert numbers["successful"]
    assert names["successful"]
    assert not wide["successful"]
    assert wide["reason"] == "the parameter alpha is 1.5; it must be a number from 0 (camera only) to 1 (colour only)."
    assert not model["successful"]
    assert not unknown["successful"]
    assert "'unknown', which is no class of the model" in unknown["reason"]


def test_reports_name_node_model_and_backend_and_count(conversation) -> None:
    report = conversation.run.answers[-1]
    assert report["name"] == "/fcnedge: segmentation"
    assert report["hardware_id"] == "tiny"
    assert report["values"]["backend"] == "fake"
    assert report["values"]["precision"] == "fp32"
    assert report["stamp"] > 1_700_000_000
    assert int(report["values"]["images segmented"]) >= len(conversation.sent)
    assert int(report["values"]["images refused"]) >= 3


def test_sigint_is_the_nodes_end_and_no_error(conversation) -> None:
    assert conversation.run.exit_code == 0, conversation.run.log


def test_a_bug_ends_the_node_with_its_traceback(ros_python, tiny, tmp_path) -> None:
    step, rows = image("black", np.zeros((4, 6, 3), np.uint8), "bgr8", 5)
    parameters = {"model": tiny, "backend": "fake"}
    bug = "raise ZeroDivisionError('a bug')"
    done = run(ros_python, tmp_path, [{**step, "do": "crash"}], {"black": rows}, parameters, bug)
    assert done.exit_code == 1
    assert done.log.rstrip().endswith("ZeroDivisionError: a bug")


def test_slow_model_masks_the_newest_picture_and_the_others_are_counted(ros_python, tiny, tmp_path) -> None:
    step, rows = image("black", np.zeros((4, 6, 3), np.uint8), "bgr8", 200)
    parameters = {"model": tiny, "backend": "fake"}
    # The first finds the node; the others come in far less than the ten seconds that masks of all would take.
    steps = [step, {**step, "do": "burst", "stamp": 201, "count": 50}]
    done = run(ros_python, tmp_path, steps, {"black": rows}, parameters, "time.sleep(0.2)")
    counts = {key: int(value) for key, value in done.answers[-1]["values"].items() if key.startswith("images")}
    assert counts["images dropped"] > 0
    assert counts["images received"] == counts["images segmented"] + counts["images dropped"]
    assert done.exit_code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-p", "alpha:=2"], "the parameter alpha is 2; it must be a number from 0 (camera only) to 1 (colour only)."),
        (["-p", "model:=5"], "the parameter model is 5; it must be text, in quotes where it looks like a number."),
        (["-p", "model:=missing"], "there is no bundle at missing"),
        (["-p", "backend:=abacus"], "'abacus' is not a backend; choose auto, cpu,"),
        (["-p", "filter_mode:=cubic"], "filter_mode is 'cubic'; it must be 'linear' or 'point'."),
        (["-p", "ignore_classes:=[dog]"], "the parameter ignore_classes names 'dog', which is no class of the model"),
        (["-p", "rubbish"], "ROS does not start: "),
        (
            ["-p", "qos_overrides./fcnedge/image.subscription.reliability:=perhaps"],
            "ROS does not open the node's topics: ",
        ),
        (["--", "--alpha", "1"], "unrecognized arguments: --alpha 1."),
    ],
)
def test_wrong_start_is_refused_in_one_sentence(ros_python, tiny, tmp_path, words, sentence) -> None:
    parameters = ["-p", f"model:={tiny}", "-p", "backend:=fake", *words]
    command = [ros_python, "-m", "fcnedge.runtime.ros2", "--ros-args", *parameters]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path, env=environment(tmp_path)
    )
    assert done.returncode == 2
    assert sentence in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_real_models_masks_are_those_of_the_segmenter(ros_python, photographs, tmp_path, request) -> None:
    done = subprocess.run([ros_python, "-c", "import onnxruntime"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"{ros_python} has no onnxruntime")
    shipped_bundle = request.getfixturevalue("shipped_bundle")  # not built where the test is skipped
    steps, pixels = [], {}
    for number, picture in enumerate(photographs):
        step, pixels[str(number)] = image(str(number), picture, "bgr8", 100 + number)
        steps.append(step)
    parameters = {"model": shipped_bundle, "backend": "onnxruntime", "precision": "fp32"}
    result = run(ros_python, tmp_path, steps, pixels, parameters)
    frames, reference = tmp_path / "frames.npz", tmp_path / "reference.npz"
    np.savez(frames, *photographs)
    subprocess.run([ros_python, "-c", REFERENCE, shipped_bundle, frames, reference], check=True, timeout=300)
    with np.load(reference) as masks:
        for number in range(len(photographs)):
            mask = masks[f"arr_{number}"]
            np.testing.assert_array_equal(result.pictures[f"{100 + number}.mask"], mask)
            assert len(np.unique(mask)) > 1
