"""The board keeps the newest result of each source, and what is known of it."""

import numpy as np
import pytest

from fcnedge.runtime.streams.status import SourceState, SourceStatus
from fcnedge.runtime.web import board as board_module
from fcnedge.runtime.web.board import Board


def test_newest_result_replaces_the_one_before(result):
    board = Board()
    assert board.newest("camera://0") is None
    for sequence in (3, 7):
        board.put(result(sequence))
    board.put(result(1, source="camera://1"))
    assert (board.newest("camera://0").number, board.newest("camera://0").result.sequence) == (2, 7)
    assert board.newest("camera://1").number == 1


def test_sources_that_nobody_told_of_are_counted_by_what_they_published(result):
    board = Board()
    board.put(result(0))
    board.put(result(4, dropped=3))
    assert board.sources() == [SourceStatus("camera://0", SourceState.LIVE, 5, 2, 3)]


def test_sources_come_in_the_order_of_their_statuses(result):
    board = Board()
    board.put(result(source="late"))
    told = [
        SourceStatus("b", SourceState.LOST),
        SourceStatus("late", SourceState.LIVE),
        SourceStatus("a", SourceState.ENDED),
    ]
    board.statuses = lambda: told
    assert board.sources() == told
    board.put(result(source="new"))
    assert [status.uri for status in board.sources()] == ["b", "late", "a", "new"]


def test_wake_is_called_by_the_next_result_alone(result):
    board, woken = Board(), []
    board.call_once(lambda: woken.append(1))
    assert woken == []
    board.put(result())
    board.put(result())
    assert woken == [1]


def test_rate_is_that_of_the_last_three_seconds(monkeypatch, result):
    board, now = Board(), [0.0]
    monkeypatch.setattr(board_module.time, "monotonic", lambda: now[0])
    one = result()
    assert board.masks_per_second("camera://0") is None
    for moment in (0.0, 10.0, 10.5, 11.0, 11.5):
        now[0] = moment
        board.put(one)
    assert board.masks_per_second("camera://0") == pytest.approx(2.0)
    now[0] = 14.2
    assert board.masks_per_second("camera://0") is None, "one within the last three seconds"


def test_shares_are_those_of_the_mask(result):
    board = Board()
    board.put(result())
    mask = board.newest("camera://0").result.segmentation.mask
    assert board.newest("camera://0").shares == {i: float(np.mean(mask == i)) for i in (1, 0, 2)}
