"""The newest image only: exact counts of what was dropped, and an end that leaves nothing behind."""

from __future__ import annotations

import threading

import pytest

from fcnedge.runtime.ros2.newest import NewestWorker

WATCHDOG_S = 60


class Gate:
    """Work that waits to be let go on, item by item."""

    def __init__(self):
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.done: list[int] = []
        self.failures: list[BaseException] = []
        self.failed = threading.Event()

    def work(self, item: int) -> None:
        self.begun.release()
        assert self.go_on.acquire(timeout=WATCHDOG_S)
        if item < 0:
            raise ValueError(item)
        self.done.append(item)

    def fail(self, error: BaseException) -> None:
        self.failures.append(error)
        self.failed.set()


@pytest.fixture
def gate() -> Gate:
    return Gate()


def test_newest_item_is_worked_on_and_those_between_are_dropped_and_counted(gate) -> None:
    worker = NewestWorker(gate.work, gate.fail)
    worker.put(0)
    assert gate.begun.acquire(timeout=WATCHDOG_S)
    for item in range(1, 10):
        worker.put(item)
    assert worker.counts == (10, 8)
    gate.go_on.release(2)
    assert gate.begun.acquire(timeout=WATCHDOG_S)
    assert worker.close(WATCHDOG_S)
    assert gate.done == [0, 9]
    assert worker.counts == (10, 8)


def test_slow_sender_loses_nothing(gate) -> None:
    worker = NewestWorker(gate.work, gate.fail)
    for item in range(20):
        worker.put(item)
        assert gate.begun.acquire(timeout=WATCHDOG_S)
        gate.go_on.release()
    assert worker.close(WATCHDOG_S)
    assert gate.done == list(range(20))
    assert worker.counts == (20, 0)


def test_close_lets_work_end_drops_what_waits_and_leaves_no_thread(gate) -> None:
    before = set(threading.enumerate())
    worker = NewestWorker(gate.work, gate.fail)
    worker.put(1)
    assert gate.begun.acquire(timeout=WATCHDOG_S)
    worker.put(2)
    assert not worker.close(timeout_s=0), "the work has not ended"
    assert worker.counts == (2, 1)
    gate.go_on.release(2)
    assert worker.close(WATCHDOG_S)
    worker.put(3)
    assert worker.counts == (3, 2)
    assert gate.done == [1]
    assert set(threading.enumerate()) == before


def test_exception_is_told_and_ends_the_work(gate) -> None:
    worker = NewestWorker(gate.work, gate.fail)
    worker.put(-1)
    gate.go_on.release(2)
    assert gate.failed.wait(WATCHDOG_S)
    assert [str(error) for error in gate.failures] == ["-1"]
    worker.put(5)
    assert worker.close(WATCHDOG_S)
    assert gate.done == []
    assert worker.counts == (2, 1)


def test_counts_add_up_whoever_sends(gate) -> None:
    gate.go_on.release(100_000)
    worker = NewestWorker(gate.work, gate.fail)
    senders = [threading.Thread(target=lambda: [worker.put(item) for item in range(500)]) for _ in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(WATCHDOG_S)
    assert worker.close(WATCHDOG_S)
    received, dropped = worker.counts
    assert received == 2000
    assert len(gate.done) == received - dropped
