"""What a graph takes and gives is compared with model.json to the letter."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fcnedge.runtime import BackendError, Bundle
from fcnedge.runtime.backends.interface import Port, check_interface, graph_precision

IMAGE = Port("image", "tensor(uint8)", (1, 32, 48, 3))
SCORES = Port("scores", "tensor(float)", (1, 8, 4, 6))
LABELS = Port("labels", "tensor(uint8)", (1, 32, 48))


@pytest.fixture
def bundle(tiny_bundle) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture
def labels_bundle(tiny_bundle) -> Bundle:
    text = json.loads((tiny_bundle / "model.json").read_text())
    text["head"]["kind"] = "labels"
    (tiny_bundle / "model.json").write_text(json.dumps(text))
    return Bundle.load(tiny_bundle)


def test_what_model_json_says_is_taken(bundle, labels_bundle):
    check_interface(bundle, [IMAGE], [SCORES])
    check_interface(bundle, [IMAGE], [replace(SCORES, type="tensor(float16)")])
    check_interface(labels_bundle, [IMAGE], [LABELS])


def test_score_grid_of_its_own_size_is_taken_and_no_other(bundle):
    """As a network has whose first convolution is padded by 100 pixels."""
    head = replace(bundle.manifest.head, points=(7, 9))
    padded = Bundle(bundle.path, replace(bundle.manifest, head=head))
    check_interface(padded, [IMAGE], [replace(SCORES, shape=(1, 8, 7, 9))])
    with pytest.raises(BackendError, match=r"model\.json says scores tensor\(float\) \[1, 8, 7, 9\]"):
        check_interface(padded, [IMAGE], [SCORES])


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [IMAGE, IMAGE],
        [replace(IMAGE, name="input_1")],
        [replace(IMAGE, type="tensor(int8)")],
        [replace(IMAGE, shape=(1, 48, 32, 3))],
        [replace(IMAGE, shape=("N", 32, 48, 3))],
    ],
    ids=lambda ports: ", ".join(map(str, ports)) or "none",
)
def test_other_inputs_are_refused(bundle, inputs):
    with pytest.raises(BackendError, match=r"the graph takes .*, model\.json says image tensor\(uint8\) \[1, 32, 48"):
        check_interface(bundle, inputs, [SCORES])


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [LABELS],
        [SCORES, SCORES],
        [replace(SCORES, name="full")],
        [replace(SCORES, type="tensor(double)")],
        [replace(SCORES, shape=(1, 8, 4, 7))],
    ],
    ids=lambda ports: ", ".join(map(str, ports)) or "none",
)
def test_other_outputs_are_refused(bundle, outputs):
    with pytest.raises(BackendError, match=r"the graph gives .*, model\.json says scores tensor\(float\) \[1, 8, 4"):
        check_interface(bundle, [IMAGE], outputs)


def test_graph_without_inputs_takes_nothing(bundle):
    with pytest.raises(BackendError, match="the graph takes nothing, "):
        check_interface(bundle, [], [SCORES])


def test_scores_where_labels_were_promised_are_refused(labels_bundle):
    with pytest.raises(BackendError, match=r"gives scores .*, model\.json says labels tensor\(uint8\) \[1, 32, 48\];"):
        check_interface(labels_bundle, [IMAGE], [SCORES])


def test_precision_is_the_one_of_the_graphs_own_entry(tmp_path, write_bundle):
    bundle = Bundle.load(write_bundle(tmp_path / "b", graph="graphs/model.onnx", precision="int8"))
    assert graph_precision(bundle, bundle.model()) == "int8"
