"""The bar shows the outermost phase, its text the innermost; Ctrl-C asks the builder to stop."""

from __future__ import annotations

import threading

import pytest

from fcnedge.build_engine.engines.build_progress import progress_monitor
from fcnedge.build_engine.engines.library import Library
from fcnedge.runtime.command import Progress


class Drawn(Progress):
    def __init__(self) -> None:
        self.lines: list[tuple[str, int | None, int | None]] = []

    def __call__(self, text: str, done: int | None = None, total: int | None = None) -> None:
        self.lines.append((text, done, total))


def test_release_without_monitors_has_none(stand_in):
    assert progress_monitor(stand_in("8.5").module, Drawn(), threading.Event()) is None


def test_nested_phases_are_drawn_as_one_bar(stand_in):
    drawn = Drawn()
    monitor = progress_monitor(stand_in("10.3").module, drawn, threading.Event())
    monitor.phase_start("Building engine", None, 6)
    assert monitor.step_complete("Building engine", 1)
    monitor.phase_start("Timing graph nodes", "Building engine", 40)
    assert monitor.step_complete("Timing graph nodes", 7)
    monitor.phase_finish("Timing graph nodes")
    monitor.phase_finish("Building engine")
    assert drawn.lines == [
        ("compile: Building engine", 0, 6),
        ("compile: Building engine", 2, 6),
        ("compile: Timing graph nodes", 2, 6),
        ("compile: Timing graph nodes", 2, 6),
        ("compile: Building engine", 2, 6),
    ]


def test_ctrl_c_while_drawing_stops_the_build_without_an_exception(stand_in):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    cancelled = threading.Event()
    monitor = progress_monitor(stand_in("10.3").module, interrupted, cancelled)
    monitor.phase_start("Building engine", None, 6)
    assert cancelled.is_set()
    assert monitor.step_complete("Building engine", 0) is False


def test_real_builder_walks_through_phases_and_closes_each(rtx: Library, bundle, monkeypatch):
    from fcnedge.build_engine.engines.build import build_engine, plan_engine
    from fcnedge.build_engine.engines.command import EngineOptions

    monkeypatch.setattr("fcnedge.build_engine.engines.build.current_gpu", lambda: None)
    drawn = Drawn()
    monkeypatch.setattr("fcnedge.build_engine.engines.compile.Progress", lambda: drawn)
    monkeypatch.setattr(drawn, "close", lambda: None, raising=False)
    build_engine(plan_engine(EngineOptions(bundle, "tensorrt_rtx", "fp32", sm="8.6")))
    steps = [done for text, done, total in drawn.lines if total]
    assert len({text for text, _, _ in drawn.lines}) > 3
    assert steps == sorted(steps)
    assert steps[-1] == pytest.approx(drawn.lines[-1][2], abs=1)
