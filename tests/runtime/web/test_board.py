"""The board keeps the newest result of each source, and what is known of it."""

from dataclasses import replace

import numpy as np
import pytest

from fcnedge.runtime.streams.status import SourceState, SourceStatus
from fcnedge.runtime.web import board as board_module
from fcnedge.runtime.web.board import Board


def test_newest_result_replaces_the_one_before(result):
    board = Board()
    board.statuses = lambda: [SourceStatus("camera://0", SourceState.CONNECTING)]
    (silent,) = board.sources()
    assert board.newest(silent) is None
    for sequence in (3, 7):
        board.put(result(sequence))
    board.put(result(1, source="camera://1"))
    first, second = board.sources()
    assert (board.newest(first).number, board.newest(first).result.sequence) == (2, 7)
    assert board.newest(second).number == 1


def test_sources_that_nobody_told_of_are_counted_by_what_they_published(result):
    board = Board()
    board.put(result(0))
    board.put(result(4, dropped=3))
    assert [each.status for each in board.sources()] == [SourceStatus("camera://0", SourceState.LIVE, 5, 2, 3)]


def test_sources_come_in_the_order_of_their_statuses(result):
    board = Board()
    board.put(result(source="late"))
    told = [
        SourceStatus("b", SourceState.LOST),
        SourceStatus("late", SourceState.LIVE),
        SourceStatus("a", SourceState.ENDED),
    ]
    board.statuses = lambda: told
    assert [each.status for each in board.sources()] == told
    board.put(result(source="new"))
    assert [each.status.uri for each in board.sources()] == ["b", "late", "a", "new"]


@pytest.mark.parametrize("first", [0, 1])
def test_two_sources_of_one_uri_are_two_by_their_places(result, first):
    board = Board()
    board.statuses = lambda: [SourceStatus("camera://0", SourceState.LIVE)] * 2
    for place in (first, 1 - first):
        board.put(replace(result(10 + place), place=place))
        shown = [board.newest(each) for each in board.sources()]
        assert shown[first].result.sequence == 10 + first
    assert [each.result.sequence for each in shown] == [10, 11]
    assert len(board.sources()) == 2


def test_results_of_streams_that_know_no_place_belong_to_the_status_of_their_uri(result):
    board = Board()
    board.statuses = lambda: [SourceStatus(name, SourceState.LIVE) for name in ("a", "b")]
    for name in ("b", "a"):
        board.put(result(source=name))
    assert [board.newest(each).result.source for each in board.sources()] == ["a", "b"]


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
    board.put(one)
    (source,) = board.sources()
    assert board.masks_per_second(source) is None
    for moment in (0.0, 10.0, 10.5, 11.0, 11.5):
        now[0] = moment
        board.put(one)
    assert board.masks_per_second(source) == pytest.approx(2.0)
    now[0] = 14.2
    assert board.masks_per_second(source) is None, "one within the last three seconds"


def test_shares_are_those_of_the_mask(result):
    board = Board()
    board.put(result())
    newest = board.newest(*board.sources())
    mask = newest.result.segmentation.mask
    assert newest.shares == {i: float(np.mean(mask == i)) for i in (1, 0, 2)}
