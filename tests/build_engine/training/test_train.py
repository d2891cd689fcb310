"""Training for real, in small: it learns, it survives being killed, and what it leaves can be built and run."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import keras
import numpy as np
import pytest
from PIL import Image

from fcnedge.build_engine import cli
from fcnedge.build_engine.build import build_bundle
from fcnedge.build_engine.model_source import ModelSource, keras_model, resolve_source
from fcnedge.build_engine.models.fcn_head import fcn_head
from fcnedge.build_engine.models.weights_file import WeightsInfo, read_info, save_weights
from fcnedge.build_engine.training.augmentation import Augmentation
from fcnedge.build_engine.training.dataset import TrainingBatches
from fcnedge.build_engine.training.train import (
    HalfResolutionMeanIoU,
    _file_bytes,
    _SetEpoch,
    half_resolution_loss,
    half_resolution_trainee,
    read_curve,
    train,
    training_augmentation,
    training_batches,
)
from fcnedge.calibration.voc import read_voc
from fcnedge.runtime.options import read_options
from fcnedge.runtime.preprocessing import Preprocessing

CLASSES = ("background", "aeroplane", "bicycle")
EPOCHS = 3
VOID = 255


def train_words(data: Path, weights: Path, output: Path) -> list[str]:
    words = ["train", "fcn8s-lite0", "--data", data, "--weights", weights, "-o", output, "--classes", ",".join(CLASSES)]
    words += ["--epochs", EPOCHS, "--batch-size", 2, "--crop", 64, "--size", "64x64", "--val-images", 3]
    words += ["--head-lr", 0.01, "--trunk-factor", 0.2, "--min-zoom", 0.9, "--max-zoom", 1.2, "--seed", 7]
    return [str(word) for word in words]


@dataclass(frozen=True)
class Runs:
    """weights: what both runs start from. straight: never stopped. killed: by SIGKILL, then started again.

    after_kill: rows of the killed run's curve before it was started again. json: the result of its second start.
    """

    weights: Path
    straight: Path
    killed: Path
    after_kill: list[dict[str, float]]
    snapshot_after_kill: bool
    json: Path


KILLED_TRAINING = """
import os, signal, sys
from fcnedge.build_engine import cli
from fcnedge.build_engine.training import train

def kill_in_the_second_epoch(self, batch, logs=None):
    if self._batches.epoch == 1:
        os.kill(os.getpid(), signal.SIGKILL)

train._SetEpoch.on_train_batch_end = kill_in_the_second_epoch
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, voc_folder: Path) -> Runs:
    folder = tmp_path_factory.mktemp("train")
    keras.utils.set_random_seed(11)
    source = ModelSource("fcn8s-lite0", "fcn8s-lite0", CLASSES, (64, 64), "stretch", None)
    weights = folder / "start.safetensors"
    info = WeightsInfo("start", source.arch, CLASSES, (64, 64), "stretch")
    save_weights(keras_model(source, fc_channels=1, fixed_size=False)[0], weights, info, "float32")

    words = train_words(voc_folder, weights, folder / "killed")
    done = subprocess.run([sys.executable, "-c", KILLED_TRAINING, *words], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    after_kill = read_curve(folder / "killed" / "curve.csv")
    snapshot = (folder / "killed" / "model.weights.h5").is_file()
    assert cli.main([*words, "--json", str(folder / "r.json")]) == 0
    assert cli.main(train_words(voc_folder, weights, folder / "straight")) == 0
    return Runs(weights, folder / "straight", folder / "killed", after_kill, snapshot, folder / "r.json")


@pytest.mark.slow
def test_loss_falls(runs):
    rows = read_curve(runs.straight / "curve.csv")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert set(rows[0]) == {"epoch", "loss", "miou", "val_loss", "val_miou"}
    assert 0 <= rows[-1]["miou"] <= 1


@pytest.mark.slow
def test_killed_run_keeps_its_finished_epochs(runs):
    assert [row["epoch"] for row in runs.after_kill] == [0]
    assert runs.snapshot_after_kill


@pytest.mark.slow
def test_run_started_again_goes_on_after_its_last_finished_epoch(runs):
    rows = read_curve(runs.killed / "curve.csv")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert rows[0] == runs.after_kill[0]


@pytest.mark.slow
def test_run_started_again_ends_as_if_never_stopped(runs):
    """Same order, same augmentation, same weights: the losses say so."""
    killed, straight = (read_curve(folder / "curve.csv") for folder in (runs.killed, runs.straight))
    for ours, theirs in zip(killed, straight, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-3)


@pytest.mark.slow
def test_schedule_goes_on_where_the_run_was_killed(runs):
    """The learning rate depends on the optimiser's count of steps: 3 epochs of 4, though the second began twice."""
    for folder in (runs.killed, runs.straight):
        with h5py.File(folder / "resume" / "latest.weights.h5") as state:
            assert state["optimizer/vars/0"][()] == 3 * 4


@pytest.mark.slow
def test_finished_run_started_again_trains_no_further_and_says_so(runs, voc_folder, capsys):
    before = (runs.killed / "curve.csv").read_bytes()
    assert cli.main(train_words(voc_folder, runs.weights, runs.killed)) == 0
    assert (runs.killed / "curve.csv").read_bytes() == before
    assert f"{runs.killed} has finished its 3 epochs already; none is trained, " in capsys.readouterr().err


@pytest.mark.slow
def test_another_run_into_the_same_folder_is_refused_and_nothing_in_it_changes(runs, voc_folder, capsys):
    before = {path: path.read_bytes() for path in runs.killed.rglob("*") if path.is_file()}
    line = refusal(capsys, [*train_words(voc_folder, runs.weights, runs.killed), "--seed", "8", "--crop", "96"])
    assert f"{runs.killed} holds another run, with --crop 64 (here 96), --seed 7 (here 8); choose another" in line
    assert {path: path.read_bytes() for path in runs.killed.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_room_asked_for_a_state_is_enough_and_little_more(runs):
    """A disk that this bound calls large enough must be: HDF5 ends the whole process where it meets a full one."""
    source = resolve_source("fcn8s-lite0", weights=runs.weights)
    model = keras_model(source, fc_channels=1, fixed_size=False)[0]
    snapshot = (runs.straight / "model.weights.h5").stat().st_size
    assert snapshot <= _file_bytes(model.variables) < 1.1 * snapshot


@pytest.mark.slow
def test_result_names_the_files_that_are_there(runs):
    result = json.loads(runs.json.read_text(encoding="utf-8"))
    assert set(result) == {"weights", "curve", "picture", "epochs", "images", "last"}
    assert (result["epochs"], result["images"]) == (EPOCHS, 8)
    assert result["last"] == pytest.approx(read_curve(runs.killed / "curve.csv")[-1])
    assert {Path(result[key]).name for key in ("weights", "curve", "picture")} == {
        "fcn8s-lite0.safetensors",
        "curve.csv",
        "curve.png",
    }
    picture = cv2.imread(result["picture"])
    assert picture is not None
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50  # axes, two curves, words: not a blank sheet


@pytest.fixture(scope="module")
def trained(runs: Runs) -> keras.Model:
    source = resolve_source("fcn8s-lite0", weights=runs.straight / "fcn8s-lite0.safetensors")
    return keras_model(source, fc_channels=1, fixed_size=False)[0]


def deconvolutions(model: keras.Model) -> Iterator[keras.layers.Layer]:
    return (layer for layer in model.layers if isinstance(layer, keras.layers.Conv2DTranspose))


@pytest.mark.slow
def test_deconvolutions_stay_bilinear_to_the_bit(trained):
    seen = 0
    for layer in deconvolutions(trained):
        (kernel,) = layer.get_weights()
        tent = 1 - np.abs(np.arange(len(kernel)) - (len(kernel) - 1) / 2) / (len(kernel) / 2)
        expected = np.outer(tent, tent)[:, :, None, None] * np.eye(len(CLASSES))
        np.testing.assert_array_equal(kernel, expected.astype(np.float32))
        seen += 1
    assert seen == 3


@pytest.mark.slow
def test_everything_else_was_trained_but_for_the_batch_norms(runs, trained):
    start = keras_model(resolve_source("fcn8s-lite0", weights=runs.weights), fc_channels=1, fixed_size=False)[0]
    norms = [layer for layer in trained.layers if isinstance(layer, keras.layers.BatchNormalization)]
    frozen = {layer.name for layer in (*deconvolutions(trained), *norms)}
    before = {variable.path: keras.ops.convert_to_numpy(variable) for variable in start.weights}
    for variable in trained.weights:  # all but the random numbers of dropouts
        moved = np.abs(keras.ops.convert_to_numpy(variable) - before[variable.path]).max()
        assert (moved > 0) == (variable.path.split("/")[0] not in frozen), variable.path


@pytest.mark.slow
def test_weights_say_what_they_are_for(runs):
    info = read_info(runs.straight / "fcn8s-lite0.safetensors")
    assert info == WeightsInfo("fcn8s-lite0", "fcn8s-lite0", CLASSES, (64, 64), "stretch")


@pytest.mark.slow
def test_trained_weights_become_a_bundle(runs, voc_folder, tmp_path):
    source = resolve_source("fcn8s-lite0", weights=runs.straight / "fcn8s-lite0.safetensors")
    report = build_bundle(source, tmp_path / "bundle", verify=voc_folder / "JPEGImages")
    assert report.agreement.holds
    assert report.agreement.pictures == 11
    assert report.fusion.tail is not None, "the last deconvolution no longer passes for bilinear"


# --- the pieces


def head_model(stride: int) -> keras.Model:
    """The FCN head alone, on three features that depend on the picture."""
    image = keras.Input((None, None, 3))
    features = [keras.layers.Conv2D(3, side, strides=side)(image) for side in (8, 16, 32)]
    return keras.Model(image, fcn_head(*features, stride=stride, classes=3))


def options_of(words: list[str]) -> cli.TrainOptions:
    return read_options(cli.TrainOptions, cli.build_parser().parse_args(words))


def normalised_model() -> keras.Model:
    """An FCN-32s over one convolution and its batch norm, whose statistics are not those of the pictures."""
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 32, strides=32, name="conv")(image)
    x = keras.layers.BatchNormalization(momentum=0.5, name="norm")(x)
    return keras.Model(image, fcn_head(x, x, x, stride=32, classes=len(CLASSES)))


@pytest.mark.parametrize("asked", [False, True])
def test_batch_norms_stay_as_they_are_unless_asked(voc_folder, tmp_path, asked):
    words = ["train", "fcn32s-lite0", "--data", str(voc_folder), "-o", str(tmp_path), "--batch-size", "4"]
    words += ["--crop", "64", "--epochs", "1", "--val-images", "0"] + asked * ["--train-batch-norm"]
    model = normalised_model()
    before = {variable.path: keras.ops.convert_to_numpy(variable) for variable in model.variables}
    source = ModelSource("m", "fcn32s-lite0", CLASSES, (64, 64), "stretch", None)
    train(model, Preprocessing("rgb", (127.0,) * 3, (1 / 128,) * 3), source, options_of(words))
    moved = {path for path, old in before.items() if (old != keras.ops.convert_to_numpy(_named(model, path))).any()}
    norm = {f"norm/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")}
    others = {"conv/kernel", "conv/bias", "score_fr/kernel", "score_fr/bias"}
    assert moved == (others | norm if asked else others)


def _named(model: keras.Model, path: str) -> keras.Variable:
    (variable,) = (variable for variable in model.variables if variable.path == path)
    return variable


def test_dropout_depends_on_seed_and_epoch_alone(voc_folder):
    """So that a run that was killed goes on with the random numbers that it would have had."""
    ones = np.ones((1, 1000), np.float32)

    def dropped(seed: int, epoch: int, calls_before: int = 0) -> np.ndarray:
        image = keras.Input((1000,))
        model = keras.Model(image, keras.layers.Dropout(0.5)(keras.layers.Dropout(0.5)(image)))
        for _ in range(calls_before):
            model(ones, training=True)
        batches = TrainingBatches(
            read_voc(voc_folder, "train"),
            Augmentation(64),
            Preprocessing("rgb", (0.0,) * 3, (1.0,) * 3),
            batch_size=2,
            seed=0,
        )
        _SetEpoch(batches, model, seed).on_epoch_begin(epoch)
        assert batches.epoch == epoch
        return keras.ops.convert_to_numpy(model(ones, training=True)) != 0

    np.testing.assert_array_equal(dropped(1, 2), dropped(1, 2, calls_before=3))
    assert 0.2 < dropped(1, 2).mean() < 0.3  # a quarter passes: each of the two layers has numbers of its own
    assert (dropped(1, 2) != dropped(1, 3)).any()
    assert (dropped(1, 2) != dropped(2, 2)).any()


def test_augmentation_is_what_the_options_ask_for(words):
    options = options_of([*words, "--crop", "64", "--size", "192x96", "--fit", "letterbox", "--min-zoom", "0.5"])
    expected = Augmentation(64, "letterbox", min_zoom=0.5, max_zoom=2.0, deployed_aspect=2.0)
    assert training_augmentation(options) == expected


def test_batches_are_what_the_options_ask_for(words):
    options = options_of([*words, "--seed", "3", "--batch-size", "4", "--copy-paste", "1"])
    preprocessing = Preprocessing("rgb", mean=(0, 0, 0), scale=(1, 1, 1))
    made = training_batches(preprocessing, options)
    samples = read_voc(options.data[0], "train")
    augmentation = training_augmentation(options)
    asked = TrainingBatches(samples, augmentation, preprocessing, batch_size=4, seed=3, copy_paste=1)
    assert len(made) == len(samples) // 4
    np.testing.assert_array_equal(made[0][0], asked[0][0])
    without = TrainingBatches(samples, augmentation, preprocessing, batch_size=4, seed=3)
    assert not np.array_equal(made[0][0], without[0][0])


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_trainee_gives_the_models_scores_at_half_resolution(stride):
    """Away from the border, where the deconvolution's scores fall off and the trainee's do not."""
    model = head_model(stride)
    picture = cv2.resize(np.random.default_rng(0).normal(size=(6, 6, 3)), (192, 192))[None].astype(np.float32)
    full = model.predict_on_batch(picture)[0]
    half = half_resolution_trainee(model).predict_on_batch(picture)[0]
    assert half.shape == (96, 96, 3)
    expected = full.reshape(96, 2, 96, 2, 3).mean(axis=(1, 3))
    inner = np.s_[stride : 96 - stride, stride : 96 - stride]
    # A pixel of the half grid lies in the middle of four of the full grid; interpolation between them is linear.
    np.testing.assert_allclose(half[inner], expected[inner], rtol=0, atol=1e-4 * np.ptp(full))


def test_trainee_shares_the_models_variables_and_freezes_deconvolutions():
    model = head_model(8)
    trainee = half_resolution_trainee(model)
    assert {id(v) for v in trainee.trainable_variables} <= {id(v) for v in model.variables}
    assert not any(
        "score2/" in v.path or "score4/" in v.path or "upsample" in v.path for v in trainee.trainable_variables
    )
    assert any("score_fr" in v.path for v in trainee.trainable_variables)


def test_loss_is_cross_entropy_over_every_second_label_and_void_weighs_nothing():
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, (2, 8, 8)).astype(np.int32)
    truth[0, :4] = VOID
    truth[:, 1::2] = 77  # rows that are not looked at may hold anything
    scores = random.standard_normal((2, 4, 4, 3)).astype(np.float32)
    loss = keras.ops.convert_to_numpy(half_resolution_loss(truth, scores))
    assert loss.shape == (2, 4, 4)
    looked_at = truth[:, ::2, ::2]
    logs = scores - np.log(np.exp(scores.astype(np.float64)).sum(-1, keepdims=True))
    for place in np.ndindex(2, 4, 4):
        label = looked_at[place]
        assert loss[place] == pytest.approx(0 if label == VOID else -logs[place][label], abs=1e-5)


def test_mean_iou_during_training_is_that_of_every_second_label():
    truth = np.full((1, 4, 4), 77, np.int32)
    truth[:, ::2, ::2] = [[0, 1], [1, VOID]]
    scores = np.eye(3, dtype=np.float32)[np.array([[[0, 1], [0, 2]]])]
    metric = HalfResolutionMeanIoU(3, name="miou")
    metric.update_state(truth, scores)
    # class 0: one hit, one false; class 1: one hit, one missed; class 2 occurs on a void pixel only
    assert float(metric.result()) == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_curve_rows_are_numbers_and_gaps_are_left_out(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("epoch,loss,val_loss\n0,1.5,\n1,0.5,0.75\n", encoding="utf-8")
    assert read_curve(path) == [{"epoch": 0.0, "loss": 1.5}, {"epoch": 1.0, "loss": 0.5, "val_loss": 0.75}]


def test_curve_of_a_run_without_validation_is_read(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("epoch,loss,val_loss\n0,1.5,NA\n", encoding="utf-8")
    assert read_curve(path) == [{"epoch": 0.0, "loss": 1.5}]


# --- mistakes that are found before Keras is loaded


def refusal(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    assert cli.main(words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    return line


@pytest.fixture
def words(voc_folder: Path, tmp_path: Path) -> list[str]:
    # a model that starts from no ImageNet weights, and so needs no torch
    words = ["train", "fcn8s-vgg16", "--data", str(voc_folder), "-o", str(tmp_path / "run")]
    return [*words, "--batch-size", "4", "--dry-run"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--crop", "100"], "--crop is 100; it must be a multiple of 32."),
        (["--epochs", "0"], "--epochs is 0; it must be 1 or more."),
        (["--batch-size", "0"], "--batch-size is 0; it must be 1 or more."),
        (["--batch-size", "9"], "8 training pictures do not fill one batch of 9; lower --batch-size."),
        (["--size", "100x100"], "size 100x100 does not fit: both sides must be multiples of 32"),
        (
            ["--min-zoom", "2.5"],
            "--min-zoom is 2.5 and --max-zoom 2.0; they must lie between 0.25 and 16.0, in order.",
        ),
        (["--min-zoom", "0"], "--min-zoom is 0.0 and --max-zoom 2.0; they must lie between"),
        (["--min-zoom", "nan"], "--min-zoom is nan and --max-zoom 2.0; they must lie between"),
        (["--max-zoom", "inf"], "--min-zoom is 0.9 and --max-zoom inf; they must lie between"),
        (["--copy-paste", "1.5"], "--copy-paste is 1.5; it is a probability from 0 to 1."),
        (["--copy-paste", "nan"], "--copy-paste is nan; it is a probability from 0 to 1."),
        (
            ["--head-lr", "0"],
            "--head-lr must be positive; --trunk-factor, --weight-decay and --val-images not negative",
        ),
        (["--val-images", "-1"], "--val-images not negative"),
        (["--split", "trian"], "has no split 'trian'; it has train, val."),
        (["--val-split", "test"], "has no split 'test'; it has train, val."),
        (["--classes", "a,b"], "holds the ids 2, which are none of 2 classes"),
        (["--weights", "gone.safetensors"], "there is no weights file gone.safetensors; check the path."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistake_is_found_before_training(capsys, words, options, complaint):
    assert complaint in refusal(capsys, [*words, *options])


def test_all_that_is_wrong_with_the_data_is_said_at_once(capsys, words, voc_folder, tmp_path):
    """A mask on its side would be trained on, stretched; what reads it finds nothing wrong."""
    folder = shutil.copytree(voc_folder, tmp_path / "VOC2012")
    masks = folder / "SegmentationClass"
    with Image.open(masks / "train_000000.png") as mask:
        mask.transpose(Image.Transpose.ROTATE_90).save(masks / "train_000000.png")
    (masks / "train_000003.png").write_bytes(b"no picture")
    (masks / "val_000001.png").write_bytes(b"no picture")
    words[words.index("--data") + 1] = str(folder)
    line = refusal(capsys, words)
    assert "3 problems in 11 samples: " in line
    assert "train_000000.png is 96x64, its picture 64x96" in line
    assert "train_000003.png is not a readable mask" in line
    assert "val_000001.png is not a readable mask" in line


def test_output_that_is_a_file_is_refused(capsys, words, tmp_path):
    (tmp_path / "run").write_text("", encoding="utf-8")
    assert "run is a file; -o names a folder." in refusal(capsys, words)


def test_data_that_is_no_voc_folder_is_refused(capsys, words, tmp_path):
    words[words.index("--data") + 1] = str(tmp_path)
    assert "is not a VOC folder" in refusal(capsys, words)


def test_pictures_of_several_folders_add_up(capsys, words, voc_folder):
    words.insert(words.index("-o"), str(voc_folder.parents[1]))
    assert cli.main(words) == 0
    assert " on 16 pictures, " in capsys.readouterr().out
    assert not any(os.scandir(Path(words[words.index("-o") + 1]).parent))
