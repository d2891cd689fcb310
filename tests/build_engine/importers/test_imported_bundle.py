"""From another program's file to a bundle: what is built and fused agrees with an independent forward pass."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from fcnedge.build_engine.cli import main
from fcnedge.build_engine.importers.origin import ImportFlags
from fcnedge.build_engine.keras_stage import run_keras_stage
from fcnedge.build_engine.model_source import resolve_source
from fcnedge.runtime import Bundle, Segmenter
from fcnedge.runtime.errors import UserError

SIZE = (64, 96)


@pytest.fixture
def pictures(dagnn, tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(2):
        cv2.imwrite(str(folder / f"{index}.png"), dagnn.blobs(SIZE, seed=index))
    return folder


def words(path: Path, pictures: Path, *options: str) -> list[str]:
    """The command line that builds the file, for `SIZE`, beside it."""
    size = f"{SIZE[1]}x{SIZE[0]}"
    return [
        "model",
        str(path),
        "-o",
        str(path.with_suffix(".bundle")),
        "--size",
        size,
        "--verify",
        str(pictures),
        *options,
    ]


def build(path: Path, pictures: Path, *options: str) -> tuple[Path, dict]:
    """The bundle and its report."""
    bundle = path.with_suffix(".bundle")
    assert main(words(path, pictures, *options)) == 0
    return bundle, json.loads((bundle / "report.json").read_text())


def assert_masks_are(bundle: Path, pictures: Path, scores_of) -> None:
    """Wherever the independent scores of the best class lead by more than 1e-4 of their range; scores_of: by image."""
    with Segmenter(bundle, backend="onnxruntime") as segmenter:
        for file in sorted(pictures.iterdir()):
            image = cv2.imread(str(file))
            scores = scores_of(image)
            top = np.sort(scores, axis=-1)
            decided = top[..., -1] - top[..., -2] > 1e-4 * np.ptp(scores)
            assert decided.mean() > 0.9
            labels = scores.argmax(-1)
            assert len(np.unique(labels)) > 1, "one class everywhere proves little"
            np.testing.assert_array_equal(segmenter(image)[decided], labels[decided])


@pytest.mark.parametrize("padding", ["caffe", "same"])
@pytest.mark.parametrize("stride", [32, 16, 8])
def test_labels_of_the_fused_bundle_are_those_of_an_independent_forward_pass(
    stride, padding, dagnn, pictures, tmp_path, capsys
):
    dag = dagnn.centred(dagnn.published(stride, seed=stride), dagnn.blobs(SIZE))
    path = dagnn.write_v7(tmp_path / "pascal-fcn-dag.mat", dag)
    bundle, report = build(path, pictures, "--padding", padding)
    manifest = Bundle.load(bundle).manifest
    assert (manifest.name, manifest.arch, manifest.classes) == (
        "pascal-fcn-dag",
        f"matconvnet fcn{stride}s",
        dagnn.NAMES,
    )
    assert (manifest.preprocessing.channel_order, manifest.preprocessing.mean) == ("rgb", dagnn.MEAN_RGB)
    assert (manifest.head.kind, manifest.head.stride) == ("bilinear", stride)
    rules = report["fusion"]["rules"]
    skips = {32: 0, 16: 1, 8: 2}[stride]
    assert rules["skip_add"]["applied"] == rules["depthwise_deconvolution"]["applied"] - 1 == skips
    assert {rule["node"] for each in rules.values() for rule in each["refused"]} == {"image_centred"}
    as_padded = dag if padding == "caffe" else dagnn.same_padded(dag)
    assert_masks_are(bundle, pictures, lambda image: dagnn.forward(as_padded, image[..., ::-1] - dagnn.MEAN_RGB))
    assert report["agreement"]["pixels_unequal"] == 0
    assert report["agreement"]["relative_score_diff"] < 1e-5
    if padding == "caffe":
        assert manifest.head.offset != (0.0, 0.0)
        assert rules["crop_before_convolution"]["applied"] == skips
        assert report["notes"] == []
        return
    assert (manifest.head.offset, manifest.head.points) == ((0.0, 0.0), None)
    changes, share = report["notes"]
    assert changes.startswith("--padding same changes conv1_1's pad from 100 to 1, fc6's pad from 0 to 3, ")
    assert all(note in capsys.readouterr().out for note in (changes,))
    differ = [
        np.mean(
            dagnn.forward(dag, image[..., ::-1] - dagnn.MEAN_RGB).argmax(-1)
            != dagnn.forward(as_padded, image[..., ::-1] - dagnn.MEAN_RGB).argmax(-1)
        )
        for image in (dagnn.blobs(SIZE, seed=index) for index in range(2))
    ]
    assert f"gives {100 * np.mean(differ):.2f}% of the labels of 2 pictures another class" in share
    assert f"{100 * max(differ):.2f}% on the worst" in share


def test_a_crop_that_was_shifted_by_hand_shifts_the_head(dagnn, pictures, tmp_path):
    dag = dagnn.published(8, crops=((3, 5), (7, 8), (27, 33)), seed=3)
    dag = dagnn.centred(dag, dagnn.blobs(SIZE))
    bundle, _ = build(dagnn.write_v7(tmp_path / "net.mat", dag), pictures)
    head = Bundle.load(bundle).manifest.head
    assert head.offset[0] != head.offset[1]
    assert_masks_are(bundle, pictures, lambda image: dagnn.forward(dag, image[..., ::-1] - dagnn.MEAN_RGB))


def test_learned_deconvolutions_keep_their_head_in_the_graph(dagnn, pictures, tmp_path):
    dag = dagnn.centred(dagnn.published(16, learned=True, seed=4), dagnn.blobs(SIZE))
    bundle, report = build(dagnn.write_v73(tmp_path / "net.mat", dag), pictures)
    assert Bundle.load(bundle).manifest.head.kind == "labels"
    refused = report["fusion"]["rules"]["last_upsampling"]["refused"]
    assert [each["reason"] for each in refused] == ["its kernel is learned, not bilinear."]
    assert_masks_are(bundle, pictures, lambda image: dagnn.forward(dag, image[..., ::-1] - dagnn.MEAN_RGB))


def test_network_of_the_toolbox_takes_its_classes_from_the_command_line(dagnn, pictures, tmp_path):
    dag = dagnn.centred(dagnn.toolbox(), dagnn.blobs(SIZE))
    path = dagnn.write_v7(tmp_path / "net-epoch-50.mat", dag, inside="net")
    bundle, _ = build(path, pictures, "--classes", "background,road,car,tree", "--precision", "fp32,fp16")
    manifest = Bundle.load(bundle).manifest
    assert manifest.classes == ("background", "road", "car", "tree")
    assert manifest.precisions == ("fp32", "fp16")
    assert_masks_are(bundle, pictures, lambda image: dagnn.forward(dag, image[..., ::-1] - dagnn.MEAN_RGB))


def test_dry_run_names_the_file_and_reads_no_weights(dagnn, tmp_path, capsys):
    dag = dagnn.published(8)
    dag.params = {"none": np.ones((1, 1))}
    path = dagnn.write_v7(tmp_path / "net.mat", dag)
    assert main(["model", str(path), "-o", str(tmp_path / "b"), "--dry-run"]) == 0
    assert "would build matconvnet fcn8s (net.mat, 4 classes, 512x512) into" in capsys.readouterr().out


def test_width_of_fc6_is_the_files_own(dagnn, tmp_path, capsys):
    path = dagnn.write_v7(tmp_path / "net.mat", dagnn.published(8, channels=(1,) * 6))
    words = ["model", str(path), "-o", str(tmp_path / "b"), "--dry-run", "--fc-channels", "512"]
    assert main(words) == 2
    assert "--fc-channels says nothing about net.mat, which has its own; leave it out." in capsys.readouterr().err


def test_classes_that_the_network_does_not_score_are_refused_before_a_bundle(dagnn, pictures, tmp_path):
    path = dagnn.write_v7(tmp_path / "net.mat", dagnn.published(32, channels=(1,) * 6))
    source = resolve_source(str(path), imports=ImportFlags(), size=SIZE)
    images = [("a", cv2.imread(str(pictures / "0.png")))]
    with pytest.raises(UserError, match=r"net\.mat scores 4 classes, 2 are named; name them with --classes"):
        run_keras_stage(replace(source, classes=("a", "b")), 1, images, tmp_path)


@pytest.mark.slow
def test_full_shape_network_is_imported_within_three_gigabytes(dagnn, pictures, tmp_path):
    """VGG16's own widths: 537 MB of weights. Time is measured by hand, not here."""
    dag = dagnn.published(8, channels=(64, 128, 256, 512, 512, 4096), classes=21)
    dag.meta = {"normalization": dag.meta["normalization"]}
    path = dagnn.write_v7(tmp_path / "pascal-fcn8s-dag.mat", dag)
    # In a process of its own: this one may have had larger children than the build, and the peak is of all of them.
    command = [sys.executable, "-m", "fcnedge.build_engine.cli", *words(path, pictures)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    bundle = path.with_suffix(".bundle")
    report = json.loads((bundle / "report.json").read_text(encoding="utf-8"))
    assert report["weights_bytes"] > 537e6
    assert report["peak_rss_bytes"] < 3e9
    assert Bundle.load(bundle).manifest.head.points == (10, 14)
    assert report["agreement"]["pixels_unequal"] == 0
