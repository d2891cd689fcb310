"""A Device gives back what it takes, leaves other CUDA users alone, and says what is wrong in one sentence."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fcnedge.runtime import BackendError, UserError
from fcnedge.runtime.cuda.device import Device
from fcnedge.runtime.cuda.driver import load_driver


def one_of_each(device: Device) -> list:
    return [
        device.stream(),
        device.event(),
        device.device_buffer(100, "a test"),
        device.host_buffer((2, 3), np.float32, "a test"),
        device.module(b"cubin"),
    ]


def test_device_says_what_it_is(cuda):
    device = Device()
    assert (device.name, device.compute_capability, device.driver_version, device.integrated) == (
        "Orin",
        "8.7",
        "12.6",
        False,
    )
    cuda.integrated = True
    assert Device().integrated


def test_asking_what_the_gpu_is_takes_no_memory_on_it(cuda):
    Device()
    assert "Device.retain_primary_context" not in cuda.names()


def test_close_frees_everything_once(cuda):
    device = Device()
    made = one_of_each(device)
    assert sorted(cuda.alive.values()) == ["Event", "Stream", "mem_alloc", "module_from_buffer", "pagelocked_empty"]
    device.close()
    device.close()
    for resource in made:
        resource.close()
    assert cuda.alive == {}
    assert cuda.cuda_stack == []


def test_resource_that_is_closed_alone_goes_alone(cuda):
    device = Device()
    made = one_of_each(device)
    for left, resource in zip(reversed(range(5)), made, strict=True):
        resource.close()
        resource.close()
        assert len(cuda.alive) == left


def test_forgotten_device_frees_what_it_has_made(cuda):
    device = Device()
    made = one_of_each(device)
    del device
    gc.collect()
    assert cuda.alive == {}
    with pytest.raises(BackendError, match="closed"):
        _ = made[0].handle


def test_device_left_open_is_freed_at_the_end_of_the_process(fake_nvcc, tmp_path):
    """And before the context, which pycuda's own destructor would detach as if it were no primary one."""
    program = (
        "import atexit, importlib.util, sys, types\n"
        "spec = importlib.util.spec_from_file_location('fake_pycuda', sys.argv[1])\n"
        "fake = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(fake)\n"
        "cuda = fake.FakeCuda(None)\n"
        "atexit.register(lambda: print(cuda.alive, cuda.names()[-1]))\n"  # called after what was registered later
        "sys.modules['pycuda'] = package = types.ModuleType('pycuda')\n"
        "sys.modules['pycuda.driver'] = package.driver = cuda.module\n"
        "from fcnedge.runtime.cuda.device import Device\n"
        "device = Device()\n"
        "kept = device.stream(), device.device_buffer(9, 'a test')\n"
        "print(len(cuda.alive))\n"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).with_name("fake_pycuda.py"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["2", "{} Context.detach"]
    assert done.stderr == ""


def test_closed_device_makes_nothing_more(cuda):
    device = Device()
    device.close()
    with pytest.raises(BackendError, match="Orin is closed"):
        device.stream()
    assert cuda.alive == {}


def test_whatever_fails_nothing_is_left(cuda):
    """The n-th call fails, for every n: each ends as a BackendError, or as success once n is past the last."""
    Device().stream()  # the primary context is retained once in a process
    for n in range(1, 100):
        cuda.fail_at = n
        try:
            device = Device()
        except BackendError:
            continue
        with contextlib.suppress(BackendError):
            one_of_each(device)
        done, cuda.fail_at = cuda.fail_at > 0, None
        device.close()
        gc.collect()
        assert cuda.alive == {}, n
        assert cuda.cuda_stack == []
        if done:
            return
    pytest.fail("never done")


def test_host_buffer_is_an_array_at_an_address(cuda):
    device = Device()
    buffer = device.host_buffer((4, 5), np.float16, "a test")
    assert (buffer.array.shape, buffer.array.dtype, buffer.nbytes) == ((4, 5), np.float16, 40)
    buffer.array[...] = 1.5
    assert (cuda.at(buffer.address, 40).view(np.float16) == 1.5).all()


def test_array_of_a_closed_buffer_cannot_be_had(cuda):
    device = Device()
    buffer = device.host_buffer((4,), np.uint8, "a test")
    buffer.close()
    with pytest.raises(BackendError, match="closed"):
        _ = buffer.array


def test_copies_go_there_and_back_when_the_stream_is_waited_for(cuda):
    device = Device()
    stream = device.stream()
    source, target = (device.host_buffer((8,), np.uint8, "a test") for _ in range(2))
    there = device.device_buffer(8, "a test")
    source.array[...] = range(8)
    with device.current():
        device.upload(there, source, stream)
        device.download(target, there, stream)
        assert (target.array == 0xCD).all()
        stream.synchronize()
    assert target.array.tolist() == list(range(8))


# Contexts


def test_foreign_context_is_current_again_afterwards(cuda):
    """Another CUDA user of the process has made a context of its own current, as PyTorch or a camera driver does."""
    cuda.cuda_stack.append("theirs")
    device = Device()
    with device.current():
        assert cuda.cuda_stack == ["theirs", "primary"]
        one_of_each(device)
    assert cuda.cuda_stack == ["theirs"]
    device.close()
    assert cuda.cuda_stack == ["theirs"]
    assert cuda.alive == {}


def test_context_is_popped_whatever_is_raised_inside(cuda):
    device = Device()
    for error in (ValueError("x"), KeyboardInterrupt(), BackendError("y"), cuda.module.LaunchError("z")):
        with pytest.raises((type(error), BackendError)), device.current():
            raise error
        assert cuda.cuda_stack == []
        assert cuda.pycuda_stack == []


def test_blocks_may_be_nested(cuda):
    device = Device()
    with device.current():
        with device.current():
            assert cuda.cuda_stack == ["primary"]
        assert cuda.cuda_stack == ["primary"]
        device.stream()
    assert cuda.cuda_stack == []


def test_two_devices_share_one_primary_context(cuda):
    first, second = Device(), Device()
    stream = first.stream()
    second.stream()
    assert cuda.names().count("Device.retain_primary_context") == 1
    second.close()
    assert list(cuda.alive.values()) == ["Stream"]
    with first.current():
        stream.synchronize()


def test_any_thread_may_make_and_close(cuda):
    device, failures = Device(), []
    made = one_of_each(device)  # by this thread

    def other() -> None:
        try:
            made.extend(one_of_each(device))
            device.close()
            assert cuda.cuda_stack == []
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert failures == []
    assert cuda.alive == {}


# What goes wrong


def test_full_memory_says_how_much_for_what_and_how_much_is_free(cuda):
    device, cuda.total = Device(), 8_000_000
    device.device_buffer(7_000_000, "the weights")
    with pytest.raises(BackendError) as caught:
        device.device_buffer(2_500_000, "the network's output")
    assert str(caught.value) == (
        "Orin has no memory left for the network's output: 2.5 MB needed, 1.0 MB of 8.0 MB free; close other "
        "programs on the GPU, or choose a smaller model or precision."
    )
    with pytest.raises(BackendError, match=r"no memory left for the frame: 4\.0 MB needed"):
        device.host_buffer((4_000_000,), np.uint8, "the frame")


def test_gpu_that_is_full_before_we_come_says_so(cuda):
    """The primary context itself takes memory, and where others have taken all it is the first to get none."""
    device, cuda.full_for = Device(), "Device.retain_primary_context"
    with pytest.raises(BackendError, match=r"^Orin has no memory left for CUDA's own context, .*; close other"):
        device.stream()
    cuda.full_for = ""
    device.stream()
    device.close()
    assert cuda.cuda_stack == []


@pytest.mark.parametrize("stuck", [False, True])
def test_lost_gpu_is_one_error_each_time_and_ends_no_process(cuda, stuck):
    """A lost GPU may refuse even to pop its context; pycuda aborts a process that ends with one on its stack."""
    device = Device()
    made = one_of_each(device)

    def lose(device: Device) -> None:
        with device.current():
            cuda.lost, cuda.stuck = True, stuck
            made[0].synchronize()

    with pytest.raises(
        BackendError, match=r"^Orin failed: Stream\.synchronize failed: unspecified .*; use the CPU, or"
    ):
        lose(device)
    assert cuda.pycuda_stack == []
    with pytest.raises(BackendError, match="Orin was lost"), device.current():
        pass
    device.close()
    del device
    made.clear()
    gc.collect()
    assert cuda.pycuda_stack == []
    assert cuda.warned == 0  # pycuda's warnings on standard error, one for each stream, event and buffer


def test_call_that_fails_on_a_gpu_that_works_does_not_make_it_a_lost_one(cuda):
    device = Device()
    stream = device.stream()
    cuda.fail_at = 2  # after the push
    with pytest.raises(BackendError, match="injected"), device.current():
        stream.synchronize()
    with device.current():
        stream.synchronize()


def test_what_runs_is_waited_for_before_anything_is_freed(cuda):
    device = Device()
    stream, _, there, here, _ = one_of_each(device)
    smaller = device.host_buffer((10,), np.uint8, "a test")
    with device.current():
        device.upload(there, smaller, stream)
    cuda.calls.clear()
    device.close()
    names = cuda.names()
    assert names.index("Stream.synchronize") < names.index("free")
    assert cuda.streams[next(iter(cuda.streams))] == []
    with pytest.raises(BackendError, match="closed"):
        _ = here.array


def test_gpu_that_does_not_say_what_it_is_is_one_sentence(cuda):
    for call in ("Device.count", "Device.compute_capability", "Device.name", "Device.get_attribute"):
        cuda.calls.clear()
        Device()
        cuda.fail_at = cuda.names().index(call) + 1
        with pytest.raises(
            BackendError,
            match=rf"shows no usable GPU: {call} failed: injected; check it with nvidia-smi, or use the CPU\.$",
        ):
            Device()


def test_kernels_that_are_refused_in_bytes_that_are_no_text_are_one_sentence(cuda, monkeypatch):
    """pycuda quotes the log of a driver that has not written one: whatever lay in that memory."""

    def refuse(image: bytes) -> None:
        b"\xff".decode()

    monkeypatch.setattr(cuda.module, "module_from_buffer", refuse)
    with pytest.raises(BackendError, match="Orin does not take these compiled kernels"):
        Device().module(b"cubin")


def test_missing_pycuda_names_the_package_alone_and_nvcc(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(UserError) as caught:
        Device()
    assert str(caught.value) == (
        "pycuda is not installed; install it with: pip install pycuda, which compiles it and needs CUDA's nvcc on PATH "
        "(JetPack has it in /usr/local/cuda/bin)."
    )


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("libcuda.so.1: cannot open shared object file: No such file or directory", "there is no NVIDIA driver here"),
        ("/x/_driver.so: undefined symbol: cuCtxCreate_v4", "driver is older than the CUDA that pycuda"),
        ("libcurand.so.10: cannot open shared object file", "pycuda is installed but cannot be loaded"),
        ("/x/libcurand.so.10: undefined symbol: cudaGetKernel", "pycuda is installed but cannot be loaded"),
    ],
)
def test_pycuda_that_does_not_load_says_why(tmp_path, monkeypatch, reason, said):
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda" / "__init__.py").touch()
    warning = "import warnings\nwarnings.warn('Failed to import the CUDA driver interface', stacklevel=2)\n"
    (tmp_path / "pycuda" / "driver.py").write_text(f"{warning}raise ImportError({reason!r})")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(BackendError) as caught:
        load_driver()
    assert said in str(caught.value)
    assert reason in str(caught.value)
    for name in ("pycuda", "pycuda.driver"):
        sys.modules.pop(name, None)


def test_driver_that_does_not_start_is_one_sentence(cuda):
    cuda.fail_at = 1
    with pytest.raises(BackendError, match=r"the NVIDIA driver does not start \(init failed: injected\)"):
        load_driver()


@pytest.mark.parametrize(("driver", "refused"), [(11040, True), (12000, False), (12060, False), (13000, False)])
def test_driver_of_an_older_major_version_than_pycudas_cuda_is_refused(cuda, driver, refused):
    cuda.driver_version = driver
    if not refused:
        load_driver()
        return
    with pytest.raises(BackendError, match=r"driver supports CUDA 11\.4, pycuda was compiled with CUDA 12\.6; update"):
        load_driver()


@pytest.mark.parametrize(("gpus", "index"), [(0, 0), (1, 1), (2, -1)])
def test_gpu_that_is_not_there_is_one_sentence(cuda, gpus, index):
    cuda.gpus = gpus
    with pytest.raises(BackendError, match=f"there is no GPU {index}: the driver shows {gpus}"):
        Device(index)
