"""What the builder is doing, on the terminal's progress line, and the way to stop it."""

from __future__ import annotations

import threading
from typing import Any

from fcnedge.runtime.command import Progress


def progress_monitor(module: Any, progress: Progress, cancelled: threading.Event) -> Any | None:
    """A `module.IProgressMonitor` that draws on `progress`; None where the library has none (before TensorRT 8.6).

    The bar counts the steps of the outermost phase, its text is the innermost. The library calls from several threads.
    Ctrl-C sets `cancelled`, and the build ends after the step in hand.
    """
    if not hasattr(module, "IProgressMonitor"):
        return None

    class BuildProgress(module.IProgressMonitor):
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self._lock = threading.Lock()
            self._phases: dict[str, list[int]] = {}  # name → [steps done, steps], outermost first

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = [0, num_steps]
                self._draw()

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                if phase_name in self._phases:
                    self._phases[phase_name][0] = step + 1
                self._draw()
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.pop(phase_name, None)
                self._draw()

        def _draw(self) -> None:
            try:
                if self._phases:
                    done, steps = next(iter(self._phases.values()))
                    progress(f"compile: {next(reversed(self._phases))}", done, steps)
            except KeyboardInterrupt:  # must not leave a method that is called from C++
                cancelled.set()

    return BuildProgress()
