"""The table of devices gives the rates that NVIDIA publishes."""

from __future__ import annotations

import pytest

from fcnedge.benchmarks.devices.device import ARCHITECTURES, DEVICES, find_device
from fcnedge.runtime.errors import UserError


@pytest.mark.parametrize(
    ("name", "precision", "tensor", "tera"),
    [
        ("nano", "fp16", False, 0.472),
        ("tx2", "fp16", False, 1.33),
        ("agx-xavier", "fp32", False, 1.41),
        ("agx-xavier", "fp16", True, 11),
        ("agx-xavier", "int8", True, 22),
        ("xavier-nx", "fp16", True, 6.8),
        ("orin-nano", "fp32", False, 1.28),
        ("orin-nano", "int8", True, 40 / 2),  # published with sparsity, which doubles it
        ("orin-nano-super", "int8", True, 67 / 2),
        ("orin-nx", "int8", True, 60 / 2),  # 100 with two DLAs
        ("agx-orin", "fp32", False, 5.3),
        ("agx-orin", "int8", True, 170 / 2),
        ("thor", "fp16", True, 2070 / 8),  # published in FP4 with sparsity
        ("h200", "fp16", True, 989.5),
        ("h200", "int8", True, 1979),
    ],
)
def test_clock_and_multiprocessors_give_the_published_rate(name, precision, tensor, tera):
    assert find_device(name).peak(precision, tensor=tensor) == pytest.approx(tera * 1e12, rel=0.03)


def test_every_figure_has_an_address():
    for device in DEVICES:
        assert set(device.sources) == {"sms", "clock", "memory", *(["link"] if device.link else [])}
        addresses = [*device.sources.values(), *device.rates.sources]
        assert all(address.startswith(("https://", "http://")) for address in addresses)


def test_names_are_unique_and_their_architectures_known():
    assert len({device.name for device in DEVICES}) == len(DEVICES)
    assert {device.architecture for device in DEVICES} == set(ARCHITECTURES)


def test_a_precision_that_the_hardware_has_not_is_the_next_one_up():
    assert ARCHITECTURES["maxwell"].computed_in("int8") == "fp16"
    assert ARCHITECTURES["pascal"].computed_in("fp16") == "fp16"
    assert ARCHITECTURES["volta"].computed_in("int8") == "int8"


def test_tensor_rate_falls_back_to_cuda_cores():
    nano = find_device("nano")
    assert nano.peak("fp16", tensor=True) == nano.peak("fp16", tensor=False)


@pytest.mark.parametrize("name", ["orin-nano", "Orin_Nano", "jetson-orin-nano", " orin-nano "])
def test_spellings_of_one_name(name):
    assert find_device(name).name == "orin-nano"


def test_an_unknown_device_is_answered_with_the_nearest_names():
    with pytest.raises(UserError, match=r"--device is 'agx-orim'; the devices are nano, .*: did you mean agx-orin"):
        find_device("agx-orim")
    with pytest.raises(UserError, match=r"choose one of these\."):
        find_device("zzzzzz")
