"""Objects in processes of their own: answers, failures, and a process that is gone."""

from __future__ import annotations

import multiprocessing
from contextlib import closing

import numpy as np
import pytest

from fcnedge.benchmarks.peers.bench import Bench
from fcnedge.benchmarks.peers.child import Child, ChildError
from fcnedge.benchmarks.peers.entry import Entry

FRAME = np.zeros((40, 60, 3), np.uint8)


def opened(opener) -> Child:
    return Child(Bench, Entry("odd", opener), 1, (FRAME,))


def test_answers_come_from_another_process(odd_peers):
    with closing(opened(odd_peers.quick)) as child:
        assert child.call("facts") == ({"quick": "1.0"}, "threads 1")
        assert len(child.call("block", [0, 0, 0], 2).times_ms) == 3
        assert len(multiprocessing.active_children()) == 1
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("opener", "message"),
    [
        ("missing", r"^nobodys-runtime is not installed; install it with: pip install 'fcnedge\[peers\]'$"),
        ("broken", r"^ValueError: no such opset\.$"),
        ("crashing", r"^its process was ended by signal 9; a lack of memory or a crash of its library are likely\.$"),
        ("floating", r"^it gives float32 \(40, 60\) for a frame of \(40, 60, 3\); expected uint8 \(H, W\)\.$"),
    ],
)
def test_what_cannot_be_opened_says_why_and_leaves_no_process(odd_peers, opener, message):
    with pytest.raises(ChildError, match=message):
        opened(getattr(odd_peers, opener))
    assert not multiprocessing.active_children()


def test_progress_is_handed_on(odd_peers, voc_folder):
    from fcnedge.calibration.voc import read_voc

    seen: list[int] = []
    with closing(opened(odd_peers.quick)) as child:
        counts = child.call("score", read_voc(voc_folder, "val"), 4, progress=seen.append)
    assert seen == [0, 1, 2]
    assert counts[:, 0].sum() == counts.sum() > 0  # all background, says that peer


_INTERRUPTED = """
import json, multiprocessing
import numpy as np, odd_peers
from fcnedge.benchmarks.peers.bench import Bench
from fcnedge.benchmarks.peers.child import Child
from fcnedge.benchmarks.peers.entry import Entry

raised = None
try:
    Child(Bench, Entry("odd", odd_peers.interrupting_at_once), 1, (np.zeros((40, 60, 3), np.uint8),))
except BaseException as error:
    raised = type(error).__name__
print(json.dumps([raised, len(multiprocessing.active_children())]))
"""


def test_an_interrupt_ends_the_child_at_once(elsewhere):
    assert elsewhere(_INTERRUPTED) == ["KeyboardInterrupt", 0]
