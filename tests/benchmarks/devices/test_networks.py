"""The reference networks are the published ones: multiply-adds and parameters as their authors count them."""

from __future__ import annotations

import pytest

from fcnedge.benchmarks.devices.graph import read_network
from fcnedge.benchmarks.devices.networks import NETWORKS

TORCHVISION = {
    # https://docs.pytorch.org/vision/stable/models.html: parameters in millions, giga-operations (multiply-adds)
    "alexnet": (61.10, 0.71),
    "densenet121": (7.98, 2.83),
    "densenet161": (28.68, 7.73),
    "densenet169": (14.15, 3.36),
    "densenet201": (20.01, 4.29),
    "mnasnet1_0": (4.38, 0.31),
    "mobilenet_v2": (3.50, 0.30),
    "resnet18": (11.69, 1.81),
    "resnet34": (21.80, 3.66),
    "resnet50": (25.56, 4.09),
    "resnet101": (44.55, 7.80),
    "resnet152": (60.19, 11.51),
    "squeezenet1_0": (1.25, 0.82),
    "squeezenet1_1": (1.24, 0.35),
    "vgg11": (132.86, 7.61),
    "vgg13": (133.05, 11.31),
    "vgg16": (138.36, 15.47),
    "vgg19": (143.67, 19.63),
}
YOLO11 = {
    # https://docs.ultralytics.com/models/yolo11/: parameters in millions, operations in G, two to a multiply-add
    **{"yolo11n": (2.6, 6.5), "yolo11s": (9.4, 21.5), "yolo11m": (20.1, 68.0)},
    **{"yolo11l": (25.3, 86.9), "yolo11x": (56.9, 194.9)},
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_counts_the_same(name):
    parameters, operations = TORCHVISION[name]
    network = read_network(NETWORKS[name](224, 224), precision="int8")
    assert network.multiply_adds / 1e9 == pytest.approx(operations, rel=0.015)
    # batch normalisation keeps four numbers per channel here, counted as two there, or is folded in
    assert network.weight_bytes / 1e6 == pytest.approx(parameters, rel=0.025)
    assert network.unknown == ()


@pytest.mark.parametrize("name", YOLO11)
def test_ultralytics_counts_the_same(name):
    parameters, operations = YOLO11[name]
    network = read_network(NETWORKS[name](640, 640), precision="int8")
    assert 2 * network.multiply_adds / 1e9 == pytest.approx(operations, rel=0.01)
    assert network.weight_bytes / 1e6 == pytest.approx(parameters, rel=0.01)


def test_mobilenet_v1_has_the_multiply_adds_of_its_paper():
    assert read_network(NETWORKS["mobilenet_v1"](224, 224)).multiply_adds == pytest.approx(569e6, rel=0.01)


def test_fcn_resnet18_has_the_grid_that_its_users_see():
    # https://github.com/dusty-nv/jetson-inference/issues/704: 16x10 for 512x320, 64x32 for 2048x1024
    for size, grid in (((320, 512), (10, 16)), ((1024, 2048), (32, 64))):
        network = read_network(NETWORKS["fcn_resnet18"](*size))
        assert network.score_bytes == 4 * 21 * grid[0] * grid[1]


def test_fcn_resnet18_has_the_weights_of_its_engine():
    # https://github.com/dusty-nv/jetson-inference/issues/1555: 23 MiB in FP16
    network = read_network(NETWORKS["fcn_resnet18"](320, 320), precision="fp16")
    assert network.weight_bytes / 2**20 == pytest.approx(23, abs=1)
