"""Kernels are compiled once per source, architecture and nvcc, and what goes wrong is one sentence."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fcnedge.runtime import BackendError, UserError
from fcnedge.runtime.cuda import compiler
from fcnedge.runtime.cuda.compiler import NVCC_FLAGS, compile_kernels, find_nvcc, load_kernels
from fcnedge.runtime.cuda.device import Device

REAL_NVCC = shutil.which("nvcc")


def compilations(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line != "--version"]


def cached(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "fcnedge" / "kernels").iterdir())


def replace_nvcc(text: str) -> None:
    find_nvcc().write_text(f"#!/bin/sh\n{text}\n")


def test_second_start_compiles_nothing(cuda, fake_nvcc, tmp_path):
    for _ in range(3):
        load_kernels(Device())
    assert len(compilations(fake_nvcc)) == 1
    assert [path.suffixes for path in cached(tmp_path)] == [[".sm_87", ".cubin"]]


def test_command_line_asks_for_exactness_and_for_this_gpu(cuda, fake_nvcc):
    load_kernels(Device())
    (command,) = compilations(fake_nvcc)
    assert command.startswith(" ".join(NVCC_FLAGS))
    assert "-fmad=false" in command.split()
    assert "-arch=sm_87" in command.split()


def test_another_gpu_nvcc_or_source_compiles_again(cuda, fake_nvcc, tmp_path, monkeypatch):
    load_kernels(Device())
    cuda.capability = (8, 9)
    load_kernels(Device())
    find_nvcc().write_text(find_nvcc().read_text().replace("12.6", "13.0"))
    load_kernels(Device())
    changed = tmp_path / "kernels.cu"
    changed.write_text(compiler.SOURCE.read_text() + "\n")
    monkeypatch.setattr(compiler, "SOURCE", changed)
    load_kernels(Device())
    assert len(compilations(fake_nvcc)) == len(cached(tmp_path)) == 4


@pytest.mark.skipif(os.name != "posix", reason="permissions are Unix's")
def test_cache_is_the_users_alone(cuda, fake_nvcc, tmp_path):
    load_kernels(Device())
    folders = [tmp_path / "cache" / "fcnedge" / "kernels", tmp_path / "cache" / "fcnedge", tmp_path / "cache"]
    assert [folder.stat().st_mode & 0o777 for folder in folders] == [0o700] * 3


def test_damaged_file_in_the_cache_is_compiled_again(cuda, fake_nvcc, tmp_path):
    load_kernels(Device())
    (file,) = cached(tmp_path)
    file.write_bytes(b"")
    load_kernels(Device())
    assert len(compilations(fake_nvcc)) == 2
    assert file.read_bytes() == b"cubin"


def test_many_that_start_at_once_leave_one_whole_file(cuda, fake_nvcc, tmp_path):
    device = Device()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: load_kernels(device), range(6)))
    (file,) = cached(tmp_path)
    assert file.read_bytes() == b"cubin"


def test_cache_that_cannot_be_written_is_a_warning(cuda, fake_nvcc, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the folder would be")
    load_kernels(Device())
    load_kernels(Device())
    assert len(compilations(fake_nvcc)) == 2
    assert "cannot be kept" in caplog.text


def test_missing_nvcc_names_jetpacks_place(cuda, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(compiler, "_DEFAULT_CUDA", tmp_path / "nothing")
    with pytest.raises(UserError, match=r"nvcc is not found.*on PATH \(JetPack has it in /usr/local/cuda/bin\)\.$"):
        load_kernels(Device())


def test_nvcc_is_found_where_cuda_home_says(monkeypatch, fake_nvcc, tmp_path):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    assert find_nvcc() == tmp_path / "cuda" / "bin" / "nvcc"


def test_nvcc_that_does_not_run_is_one_sentence(cuda):
    replace_nvcc("echo broken >&2; exit 3")
    with pytest.raises(BackendError, match=r"nvcc does not run: broken\.$"):
        load_kernels(Device())


def test_nvcc_that_refuses_is_one_sentence_with_its_first_error(cuda):
    replace_nvcc(
        '[ "$1" = --version ] && exit 0; echo note; echo "nvcc fatal : Unsupported gpu architecture sm_87" >&2; exit 1'
    )
    with pytest.raises(BackendError, match=r"cannot compile the GPU kernels for sm_87: nvcc fatal : Unsupported gpu"):
        load_kernels(Device())


def test_code_that_the_driver_does_not_take_says_which_cuda_it_has(cuda):
    replace_nvcc('[ "$1" = --version ] && exit 0; while [ $# -gt 1 ]; do [ "$1" = -o ] && echo new > "$2"; shift; done')
    with pytest.raises(BackendError, match=r"Orin does not take the kernels .* supports CUDA 12\.6: put the nvcc of"):
        load_kernels(Device())
    assert cuda.cuda_stack == []


def test_kernels_that_find_no_memory_are_not_compiled_again(cuda, fake_nvcc):
    """And nobody is told to take another nvcc."""
    cuda.full_for = "module_from_buffer"
    with pytest.raises(BackendError) as caught:
        load_kernels(Device())
    assert str(caught.value) == (
        "Orin has no memory left for the kernels: 8,000.0 MB of 8,000.0 MB free; close other programs on the GPU, or "
        "choose a smaller model or precision."
    )
    with pytest.raises(BackendError, match="no memory left for the kernels"):
        load_kernels(Device())
    assert len(compilations(fake_nvcc)) == 1


def test_real_nvcc_compiles_the_kernels():
    """For an architecture that CUDA 11.8 to 13 know. The cubin is an ELF file that names all kernels."""
    if REAL_NVCC is None:
        pytest.skip("no nvcc on PATH")
    cubin = compile_kernels(Path(REAL_NVCC), "sm_89")
    assert cubin.startswith(b"\x7fELF")
    for name in (b"preprocess", b"scores_to_labels_f32", b"scores_to_labels_f16", b"overlay"):
        assert b".text." + name in cubin
