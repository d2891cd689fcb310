"""Which graph a CPU takes, by what it says it can do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fcnedge.runtime import Bundle
from fcnedge.runtime.backends import cpu_target, onnxruntime, openvino

PLAIN = "processor\t: 0\nflags\t\t: fpu sse2 avx2 avx512f\nbogomips\t: 4000\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n"


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    cpu_target.cpu_target.cache_clear()
    yield
    cpu_target.cpu_target.cache_clear()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PLAIN, None),
        (PLAIN.replace("avx512f", "avx512f avx512_vnni"), "vnni"),
        (PLAIN.replace("avx512f", "avx_vnni"), "vnni"),
        (ARM, None),
        ("", None),
        (None, None),
    ],
    ids=["avx2", "avx512_vnni", "avx_vnni", "arm", "empty", "no file"],
)
def test_vnni_is_what_the_flags_say(text, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_target, "_CPUINFO", tmp_path / "cpuinfo")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert cpu_target.cpu_target() == expected


@pytest.mark.parametrize("target", [None, "vnni"])
@pytest.mark.parametrize("backend", [onnxruntime.OnnxRuntimeBackend, openvino.OpenVinoBackend])
def test_cpu_backends_ask_for_the_graph_of_this_cpu(backend, target, tiny_bundle: Path, monkeypatch):
    monkeypatch.setattr(onnxruntime, "cpu_target", lambda: target)
    monkeypatch.setattr(openvino, "cpu_target", lambda: target)
    asked = []
    model = Bundle.model
    monkeypatch.setattr(Bundle, "model", lambda self, *words: asked.append(words) or model(self, *words))
    backend(Bundle.load(tiny_bundle), "fp32").close()
    assert asked == [("fp32", target)]
