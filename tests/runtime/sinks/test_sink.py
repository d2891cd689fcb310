"""What all sinks have in common."""

import pytest

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.sinks import Sink


class Incomplete(Sink):
    def take(self, result, picture):
        self.written += 1

    def close(self):
        raise UserError("the end is missing")


def test_output_that_cannot_be_finished_is_told():
    with pytest.raises(UserError, match="the end is missing"), Incomplete("x"):
        pass


def test_error_in_the_loop_is_not_hidden_by_closing():
    with pytest.raises(ZeroDivisionError), Incomplete("x"):
        raise ZeroDivisionError
