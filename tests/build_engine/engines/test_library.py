"""TensorRT that is missing or broken, and the features of each release."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fcnedge.build_engine.engines import library as library_module
from fcnedge.build_engine.engines.library import Library, open_library
from fcnedge.runtime.errors import UserError


@pytest.mark.parametrize(
    ("version", "flags", "typing", "calibrators"),
    [("8.5", True, False, True), ("10.3", True, True, True), ("10.13", True, True, True), ("11.4", False, True, False)],
)
def test_features_of_each_release(stand_in, version, flags, typing, calibrators):
    library = Library("tensorrt", stand_in(version).module)
    assert (library.has_precision_flags, library.has_strong_typing, library.has_calibrators) == (
        flags,
        typing,
        calibrators,
    )
    assert library.compute_capabilities == ()


def test_network_flags_are_made_of_the_releases_own_integers(stand_in):
    for version in ("8.5", "10.3", "11.4"):
        module = stand_in(version).module
        kinds = module.NetworkDefinitionCreationFlag.__members__
        expected = sum(1 << int(kinds[name]) for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED") if name in kinds)
        assert Library("tensorrt", module).network_flags(strongly_typed=True) == expected


def test_real_library_says_what_it_compiles_for(rtx: Library):
    assert rtx.title == f"TensorRT-RTX {rtx.version}"
    assert {"7.5", "8.6", "8.9", "12.0"} <= set(rtx.compute_capabilities)


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("tensorrt", r"JetPack's on a Jetson .*--system-site-packages.*pip install 'fcnedge\[tensorrt\]'\.$"),
        ("tensorrt_rtx", r"pip install 'fcnedge\[rtx\]'\.$"),
    ],
)
def test_missing_library_names_the_way_to_get_it(monkeypatch, target, hint):
    monkeypatch.setattr(library_module, "_is_installed", lambda name: False)
    with pytest.raises(UserError, match=f"^{target} is not installed; .*{hint}"):
        open_library(target)


def test_library_that_does_not_load_says_why(monkeypatch, tmp_path: Path):
    package = tmp_path / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text(
        "raise ImportError('libnvinfer.so.10: cannot open shared object file\\nand more')", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(UserError) as caught:
        open_library("tensorrt")
    assert str(caught.value).startswith(
        "tensorrt is installed but cannot be loaded (libnvinfer.so.10: cannot open shared object file); reinstall it: "
    )
