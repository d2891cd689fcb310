"""Every architecture: layer names of the published weights, output shapes, sizes, and refusals."""

from __future__ import annotations

import keras
import pytest

from fcnedge.build_engine.models import ARCHITECTURES, Architecture, build_model
from fcnedge.runtime.errors import UserError

TRUNK_VGG16 = [
    *("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3"),
    *("conv4_1", "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3", "fc6", "fc7"),
]
# The layers that carry weights, as in MatConvNet's pascal-fcn32s-dag, -16s-dag and -8s-tvg-dag.
HEADS = {
    32: {"score_fr", "upsample"},
    16: {"score_fr", "score2", "score_pool4", "upsample_new"},
    8: {"score_fr", "score2", "score_pool4", "score4", "score_pool3", "upsample"},
}
CONTEXT_LITE0 = {"conv7", "conv7_bn", "score_context"}


@pytest.fixture(autouse=True)
def clear_session():
    yield
    keras.utils.clear_session()


def weighted(model: keras.Model) -> set[str]:
    return {layer.name for layer in model.layers if layer.weights}


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_vgg16_layers_have_the_names_of_the_published_weights(stride):
    model = build_model(Architecture(stride, "vgg16"), classes=3, fc_channels=2)
    assert weighted(model) == {*TRUNK_VGG16, *HEADS[stride]}


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_lite0_has_the_same_head_and_context_besides(stride):
    model = build_model(Architecture(stride, "lite0"), classes=3)
    assert {name for name in weighted(model) if not name.startswith(("stem", "block"))} == HEADS[stride] | CONTEXT_LITE0


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("classes", "size"), [(2, (32, 32)), (21, (64, 160)), (60, (96, 32)), (5, (512, 320))])
def test_output_has_the_size_of_the_input_and_a_score_per_class(name, classes, size):
    model = build_model(Architecture.parse(name), classes=classes, size=size, fc_channels=2)
    assert model.input_shape == (None, *size, 3)
    assert model.output_shape == (None, *size, classes)
    assert model.name == name.replace("-", "_")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_model_without_a_size_takes_any(name):
    model = build_model(Architecture.parse(name), classes=3, fc_channels=2)
    for size in ((32, 64), (96, 32)):
        assert model.compute_output_shape((1, *size, 3)) == (1, *size, 3)


@pytest.mark.parametrize(("size", "fits"), [((100, 64), "64x96"), ((64, 20), "32x64"), ((64, 5000), "4096x64")])
def test_size_that_is_no_multiple_of_32_is_refused_with_one_that_is(size, fits):
    with pytest.raises(UserError, match=f"try {fits}"):
        build_model(Architecture(8, "lite0"), classes=3, size=size)
