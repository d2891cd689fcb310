"""Kernel times, ranges, and the size that reaches a frame rate."""

from __future__ import annotations

import pytest

from fcnedge.benchmarks.devices.device import DEVICES, find_device
from fcnedge.benchmarks.devices.efficiency import efficiency
from fcnedge.benchmarks.devices.forecast import BOUNDS, forecast, largest_size
from fcnedge.benchmarks.devices.frame_stages import Stage, after_network, before_network
from fcnedge.benchmarks.devices.graph import Network, read_network
from fcnedge.benchmarks.devices.graph_builder import GraphBuilder
from fcnedge.benchmarks.devices.kernel_time import KERNEL_MS, roofline
from fcnedge.benchmarks.devices.layer import Layer
from fcnedge.runtime.errors import UserError

FRAME = (720, 1280)
DENSE = Layer("dense", "Conv", "fp16", 10**9, 10**6, 0, 10**6, 512, 512)


def network(size: tuple[int, int] = (384, 384)) -> Network:
    g = GraphBuilder(*size)
    x = g.conv(g.picture, 64, 3, 2)
    for _ in range(4):
        x = g.conv(g.depthwise(x), 64, 3)
    return read_network(g.model(g.conv(x, 21, act=None)), precision="fp16")


def test_the_longer_of_computing_and_moving_decides():
    orin = find_device("orin-nano")  # 10.24 T FP16 on Tensor Cores, 68 GB/s
    found = roofline(DENSE, orin)
    assert (found.unit, found.work) == ("Tensor Cores", "compute")
    assert found.ms == pytest.approx(1e3 * 2e9 / 10.24e12)
    moving = roofline(Layer("pool", "MaxPool", "fp16", 0, 68 * 10**6, 0, 0), orin)
    assert (moving.unit, moving.work) == ("", "memory")
    assert moving.ms == pytest.approx(1)
    assert moving.predicted_ms(0.5) == pytest.approx(2 + KERNEL_MS)
    assert roofline(Layer("tiny", "Relu", "fp16", 0, 10, 0, 10), orin).bound(0.5) == "launch"


def test_depthwise_convolutions_run_at_the_rate_of_cuda_cores():
    depthwise = Layer("d", "depthwise Conv", "fp16", 10**9, 1, 0, 1, 1, 1, 512)
    orin = find_device("orin-nano")
    assert roofline(depthwise, orin).unit == "CUDA cores"
    assert roofline(depthwise, orin).ms == pytest.approx(8 * roofline(DENSE, orin).ms)


def test_winograd_helps_small_kernels_on_cuda_cores_alone():
    small = Layer("s", "Conv", "fp16", 10**9, 1, 0, 1, 512, 512, small_kernel=True)
    nano, orin = find_device("nano"), find_device("orin-nano")
    assert roofline(DENSE, nano).ms == pytest.approx(2.25 * roofline(small, nano).ms)
    assert roofline(DENSE, orin).compute_ms == roofline(small, orin).compute_ms


def test_bytes_outside_the_network_follow_from_the_shapes():
    copied, preprocess = before_network(FRAME, (512, 512))
    assert copied.link == 720 * 1280 * 3
    assert preprocess.memory == 720 * 1280 * 3 + 512 * 512 * 3
    labels, overlay, back = after_network(FRAME, 1000)
    assert labels.memory == 1000 + 720 * 1280
    assert overlay.memory == 7 * 720 * 1280
    assert (overlay.optional, labels.optional, back.link) == (True, False, 720 * 1280)


def test_the_slowest_of_memory_link_and_operations_decides():
    h200 = find_device("h200")
    assert Stage("memory", memory=48 * 10**8, link=1).ideal_ms(h200) == pytest.approx(1)
    assert Stage("link", memory=1, link=128 * 10**6).ideal_ms(h200) == pytest.approx(2)
    tensor = Stage("operations", multiply_adds=10**12).ideal_ms(h200)
    assert tensor == pytest.approx(1e3 * 2e12 / 989.5e12, rel=0.01)
    assert Stage("both", multiply_adds=10**12, cuda_multiply_adds=10**12).ideal_ms(h200) > 2 * tensor
    assert Stage("frame to GPU", link=10**9).ideal_ms(find_device("nano")) == 0


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_sums_and_ranges_are_in_order(device):
    found = forecast(network(), device, FRAME)
    for each in (found.network, found.outside, found.whole, found.fps):
        assert 0 < each.low <= each.expected <= each.high
    assert found.network.expected == pytest.approx(sum(layer.ms for layer in found.layers))
    assert found.outside.expected == pytest.approx(sum(stage.ms for stage in found.stages if not stage.optional))
    assert found.fps.expected == pytest.approx(1e3 / found.whole.expected)
    shares = found.shares()
    assert tuple(shares) == BOUNDS
    assert sum(shares.values()) == pytest.approx(1)


def test_a_faster_clock_of_the_same_board_is_faster():
    slow, fast = (forecast(network(), find_device(name), FRAME) for name in ("orin-nano", "orin-nano-super"))
    assert fast.whole.expected < slow.whole.expected
    assert efficiency("ampere") == slow.efficiency == fast.efficiency


@pytest.mark.parametrize("like", [(320, 512), (512, 512), (640, 320)])
def test_the_largest_size_is_the_last_that_a_search_one_by_one_finds(like):
    device = find_device("nano")
    fps = 1e3 / forecast(network(like), device, FRAME).whole.expected / 2.3
    expected, surely = largest_size(network, device, FRAME, like, fps)
    short, long = min(like), max(like)
    sizes = [(side, round(side * long / short / 32) * 32) for side in range(64, 2048, 32)]
    sizes = [size if like[0] <= like[1] else size[::-1] for size in sizes]
    reached = [size for size in sizes if forecast(network(size), device, FRAME).whole.expected <= 1e3 / fps]
    assert expected == reached[-1]
    assert surely is not None
    assert sizes.index(surely) <= sizes.index(reached[-1])
    assert forecast(network(surely), device, FRAME).whole.high <= 1e3 / fps


def test_no_size_reaches_a_frame_rate_without_bound():
    assert largest_size(network, find_device("nano"), FRAME, (320, 320), 1e6) == (None, None)


def test_a_graph_that_fits_one_size_has_no_largest():
    def read(size: tuple[int, int]) -> Network:
        raise UserError("fixed")

    assert largest_size(read, find_device("nano"), FRAME, (320, 320), 30) == (None, None)
