"""A folder belongs to one run, is known to be writable before hours of work, and a full disk costs one epoch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fcnedge.build_engine.cli import TrainOptions
from fcnedge.build_engine.model_source import ModelSource
from fcnedge.build_engine.training.run_folder import (
    RunIdentity,
    check_room,
    check_writable,
    disk_errors,
    finished_epochs,
)
from fcnedge.build_engine.training.samples import training_samples, validation_samples
from fcnedge.runtime.errors import UserError

SOURCE = ModelSource("fcn8s-lite0", "fcn8s-lite0", ("background", "aeroplane", "bicycle"), (384, 384), "stretch", None)


@pytest.fixture
def options(voc_folder: Path, tmp_path: Path) -> TrainOptions:
    return TrainOptions("fcn8s-lite0", (voc_folder,), tmp_path / "run")


def identity(options: TrainOptions, source: ModelSource = SOURCE) -> RunIdentity:
    return RunIdentity.of(source, options, training_samples(options), validation_samples(options))


@pytest.fixture
def held(options: TrainOptions) -> TrainOptions:
    """Give the options of a run that has left its identity and a state, of which only the place matters here."""
    (options.output / "resume").mkdir(parents=True)
    (options.output / "resume" / "latest.weights.h5").write_bytes(b"state")
    identity(options).write(options.output)
    return options


# --- whose folder it is


def test_same_run_goes_on(held):
    identity(held).check(held.output)


def test_run_whose_data_moved_goes_on(held, voc_folder, tmp_path):
    moved = shutil.copytree(voc_folder, tmp_path / "moved" / "VOC2012")
    identity(replace(held, data=(moved,))).check(held.output)


def test_run_without_data_of_its_own_goes_on_with_other_outputs(held):
    identity(replace(held, json=Path("other.json"), dry_run=True)).check(held.output)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": (320, 512)}, "--size 384x384 (here 512x320)"),
        ({"fit": "letterbox"}, "--fit stretch (here letterbox)"),
        ({"crop": 64}, "--crop 320 (here 64)"),
        ({"epochs": 20}, "--epochs 14 (here 20)"),
        ({"batch_size": 4}, "--batch-size 16 (here 4)"),
        ({"head_lr": 1e-3}, "--head-lr 0.002 (here 0.001)"),
        ({"trunk_factor": 1.0}, "--trunk-factor 0.15 (here 1.0)"),
        ({"weight_decay": 0.0}, "--weight-decay 0.05 (here 0.0)"),
        ({"min_zoom": 0.5}, "--min-zoom 0.9 (here 0.5)"),
        ({"max_zoom": 3.0}, "--max-zoom 2.0 (here 3.0)"),
        ({"train_batch_norm": True}, "--train-batch-norm False (here True)"),
        ({"fc_channels": 8}, "--fc-channels 4096 (here 8)"),
        ({"seed": 1}, "--seed 0 (here 1)"),
        ({"split": "val"}, "other training pictures"),
        ({"val_split": "train"}, "other validation pictures"),
        ({"val_images": 2}, "other validation pictures"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_run_with_another_option_is_refused_by_its_name(held, change, words):
    with pytest.raises(UserError) as caught:
        identity(replace(held, **change)).check(held.output)
    assert str(caught.value) == (
        f"{held.output} holds another run, with {words}; choose another folder with -o, or give what it was given to "
        "go on with it."
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arch": "fcn16s-lite0"}, "model fcn8s-lite0 (here fcn16s-lite0)"),
        ({"classes": ("background", "road")}, "other class names"),
        ({"classes": ("background", "aeroplane", "tricycle")}, "other class names"),
    ],
)
def test_run_of_another_model_is_refused(held, change, words):
    with pytest.raises(UserError, match="holds another run, with ") as caught:
        identity(held, replace(SOURCE, **change)).check(held.output)
    assert f", with {words}; " in str(caught.value)


def test_run_from_other_weights_is_refused_whatever_their_name(held, tmp_path):
    weights = tmp_path / "start.safetensors"
    weights.write_bytes(b"first")
    with pytest.raises(UserError, match="with other start weights;"):
        identity(held, replace(SOURCE, weights=weights)).check(held.output)
    identity(held, replace(SOURCE, weights=weights)).write(held.output)
    identity(held, replace(SOURCE, weights=weights)).check(held.output)
    weights.write_bytes(b"other")
    with pytest.raises(UserError, match="with other start weights;"):
        identity(held, replace(SOURCE, weights=weights)).check(held.output)


def test_run_on_mended_masks_is_refused(held, voc_folder, tmp_path):
    folder = shutil.copytree(voc_folder, tmp_path / "VOC2012")
    mask = folder / "SegmentationClass" / "train_000002.png"
    mask.write_bytes(mask.read_bytes() + b"\0")
    with pytest.raises(UserError, match="with other training pictures;"):
        identity(replace(held, data=(folder,))).check(held.output)


def test_all_differences_are_named_at_once(held):
    with pytest.raises(UserError, match=r"with --crop 320 \(here 64\), --seed 0 \(here 3\), other validation pictures"):
        identity(replace(held, crop=64, seed=3, val_images=1)).check(held.output)


@pytest.mark.parametrize("damage", ["gone", "empty", "list", "other format", "half"])
def test_state_whose_run_is_unknown_is_refused(held, damage):
    path = held.output / "run.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    if damage == "gone":
        path.unlink()
    else:
        text = {"empty": "", "list": "[]", "other format": json.dumps(whole | {"format": 2})}
        path.write_text(text.get(damage, json.dumps(whole)[:50]), encoding="utf-8")
    with pytest.raises(UserError, match=r"for its run\.json is missing or damaged; choose another folder with -o\.$"):
        identity(held).check(held.output)


def test_run_that_left_no_state_holds_its_folder_against_nobody(held):
    """It was stopped in its first epoch, most likely for a wrong option."""
    shutil.rmtree(held.output / "resume")
    identity(replace(held, crop=64)).check(held.output)


def test_folder_that_is_not_there_belongs_to_nobody(options):
    identity(options).check(options.output)
    assert not options.output.exists()


def test_finished_epochs_are_those_of_the_state(held):
    assert finished_epochs(held.output) == 0
    (held.output / "resume" / "training_metadata.json").write_text('{"epoch": 3, "batch": 0}', encoding="utf-8")
    assert finished_epochs(held.output) == 3


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"epoch": null}'])
def test_damaged_state_is_refused(held, text):
    (held.output / "resume" / "training_metadata.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"resume is damaged \(.*\), so its run cannot go on; choose another folder"):
        finished_epochs(held.output)


# --- whether it can be written


def test_folder_that_can_be_made_is_accepted_and_not_made(tmp_path):
    check_writable(tmp_path / "deep" / "run")
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_output_at_or_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"file is a file; -o names a folder\.$"):
        check_writable(tmp_path / "file")
    with pytest.raises(UserError, match=r"file is a file, so no folder can lie in it; choose another place for -o\.$"):
        check_writable(tmp_path / "file" / "deep" / "run")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc here")
@pytest.mark.parametrize("output", ["/proc/x", "/proc/x/deep/run"])
def test_place_where_not_even_root_can_write_is_refused(output):
    with pytest.raises(UserError, match=rf"^({output} cannot be written \(|/proc cannot be written to).* for -o\.$"):
        check_writable(Path(output))


def test_output_with_an_endless_name_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot be written \(File name too long\); choose another place for -o"):
        check_writable(tmp_path / ("n" * 300))


TRY_TO_TRAIN = """
import os, sys
from fcnedge.build_engine import cli
from fcnedge.build_engine.training import command
if os.getuid() == 0 and sys.argv[1] == "nobody":
    os.setuid(65534)
sys.exit(cli.main(sys.argv[2:]))
"""


def tried(voc_folder: Path, output: Path, user: str, *wrappers: Callable[[list[str]], list[str]]) -> str:
    words = ["train", "fcn8s-vgg16", "--data", str(voc_folder), "-o", str(output), "--batch-size", "4", "--dry-run"]
    command = [sys.executable, "-c", TRY_TO_TRAIN, user, *words]
    for wrap in wrappers:
        command = wrap(command)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_read_only_disk_is_refused_before_training(voc_folder, tmp_path, small_disk: Callable[..., list[str]]):
    line = tried(voc_folder, tmp_path / "run", "me", lambda command: small_disk(tmp_path, "1m,ro", command))
    assert line == f"fcn-build train: {tmp_path} cannot be written to; choose another place for -o."


def test_folder_of_somebody_else_is_refused_before_training(voc_folder, tmp_path):
    tmp_path.chmod(0o500)
    line = tried(voc_folder, tmp_path / "run", "nobody")
    tmp_path.chmod(0o700)
    assert line in (
        f"fcn-build train: {tmp_path}/run cannot be written (Permission denied); choose another place for -o.",
        f"fcn-build train: {tmp_path} cannot be written to; choose another place for -o.",
    )


# --- whether there is room


def test_files_that_are_overwritten_count_as_room(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_room(tmp_path, 1000, 1000)
    with pytest.raises(UserError, match=r"MB are left, [\d,.]+ MB are needed; free some space and start the same comm"):
        check_room(tmp_path, free, 0)
    (tmp_path / "resume").mkdir()
    for name in ("resume/latest.weights.h5", "resume/latest.weights.h5.bkp"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2 * free)  # a hole: it takes no space
    check_room(tmp_path, 2 * free, 0)


FILL_THE_DISK = """
import sys
from pathlib import Path
from fcnedge.build_engine.training.run_folder import disk_errors
try:
    with disk_errors(Path(sys.argv[1])):
        (Path(sys.argv[1]) / "curve.csv").write_bytes(bytes(8 << 20))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


def test_full_disk_is_one_sentence_that_says_how_to_go_on(tmp_path, small_disk: Callable[..., list[str]]):
    command = small_disk(tmp_path, "1m", [sys.executable, "-c", FILL_THE_DISK, str(tmp_path)])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"UserError: the disk is full while training into {tmp_path}: No space left on device; free some space and "
        "start the same command again, which goes on after the last finished epoch.\n"
    )


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(ZeroDivisionError), disk_errors(tmp_path):
        raise ZeroDivisionError
    with pytest.raises(UserError, match=r"^mine$"), disk_errors(tmp_path):
        raise UserError("mine")


TRAIN_ON_A_SMALL_DISK = """
import sys
from pathlib import Path

import keras

from fcnedge.build_engine.cli import TrainOptions
from fcnedge.build_engine.model_source import ModelSource
from fcnedge.build_engine.models.fcn_head import fcn_head
from fcnedge.build_engine.training import train
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.preprocessing import Preprocessing

data, output = Path(sys.argv[1]), Path(sys.argv[2])
options = TrainOptions("m", (data,), output, crop=64, epochs=3, batch_size=4, val_images=0)
source = ModelSource("m", "fcn32s-lite0", ("a", "b", "c"), (64, 64), "stretch", None)

def attempt():
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 32, strides=32, name="conv")(image)
    model = keras.Model(image, fcn_head(x, x, x, stride=32, classes=3))
    try:
        curve = train.train(model, Preprocessing("rgb", (127.0,) * 3, (1 / 128,) * 3), source, options)
        print("EPOCHS", [row["epoch"] for row in train.read_curve(curve)])
    except UserError as error:
        print("REFUSED", error)
    print("FILES", sorted(path.name for path in output.rglob("*") if path.is_file()))

filler, begin = output / "filler", train._SetEpoch.on_epoch_begin

def fill(self, epoch, logs=None):
    begin(self, epoch, logs)
    if epoch == 1:
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass

if sys.argv[3] == "fill":
    train._SetEpoch.on_epoch_begin = fill
attempt()
if sys.argv[3] == "fill":
    train._SetEpoch.on_epoch_begin = begin
    filler.unlink()
    attempt()
"""


def lines_from_small_disk(
    voc_folder: Path, output: Path, small_disk: Callable[..., list[str]], size: str, mode: str
) -> list[str]:
    words = [sys.executable, "-c", TRAIN_ON_A_SMALL_DISK, str(voc_folder), str(output), mode]
    done = subprocess.run(small_disk(output, size, words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [line for line in done.stdout.splitlines() if line.startswith(("EPOCHS", "REFUSED", "FILES"))]


@pytest.mark.slow
def test_disk_without_room_for_a_state_is_refused_before_the_first_epoch(voc_folder, tmp_path, small_disk):
    refused, files = lines_from_small_disk(voc_folder, tmp_path, small_disk, "256k", "leave")
    assert refused.startswith(f"REFUSED the disk is full while training into {tmp_path}: 0.3 MB are left, 0.")
    assert files == "FILES []"


@pytest.mark.slow
def test_run_that_met_a_full_disk_goes_on_when_there_is_room_again(voc_folder, tmp_path, small_disk):
    refused, files, epochs, complete = lines_from_small_disk(voc_folder, tmp_path, small_disk, "1m", "fill")
    assert refused.startswith(f"REFUSED the disk is full while training into {tmp_path}: 0.0 MB are left, ")
    assert "latest.weights.h5" in files
    assert epochs == "EPOCHS [0.0, 1.0, 2.0]"
    assert "'curve.csv', 'latest.weights.h5', 'latest.weights.h5.bkp', 'model.weights.h5'" in complete
