"""The waits between attempts, over many seeds."""

import random

from hypothesis import given
from hypothesis import strategies as st

from fcnedge.runtime.streams.backoff import Backoff

FULL = [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


@given(st.integers())
def test_waits_double_from_a_quarter_to_five_seconds_less_up_to_half(seed):
    backoff = Backoff(random.Random(seed))
    assert backoff.next_s() == 0.0  # after a loss at once
    for full in FULL:
        assert full / 2 <= backoff.next_s() <= full


def test_two_cameras_do_not_wait_alike():
    waits = [[backoff.next_s() for _ in range(5)] for backoff in (Backoff(random.Random(1)), Backoff(random.Random(2)))]
    assert waits[0][1:] != waits[1][1:]


def test_after_a_reset_the_first_try_is_at_once_again():
    backoff = Backoff()
    for _ in range(2000):  # 2.0 ** 2000 is no float
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 0.0
    assert backoff.next_s() <= 0.25
