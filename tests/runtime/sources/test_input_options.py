"""Values that no source could have are refused where they are given."""

import pytest

from fcnedge.runtime import UserError
from fcnedge.runtime.sources import InputOptions


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"width": 0, "height": 1}, "width is 0"),
        ({"width": 640}, "go together"),
        ({"height": 480}, "go together"),
        ({"rate": 0}, "rate is 0"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"codec": "H.264"}, "codec is 'H.264'.*h264"),
        ({"flip": "left"}, "flip is 'left'.*counterclockwise"),
        ({"loop": -2}, "loop is -2"),
        ({"latency_ms": -1}, "latency is -1"),
        ({"timeout_s": 0}, "timeout is 0"),
        ({"timeout_s": float("inf")}, "timeout is inf"),
    ],
)
def test_impossible_wishes_are_refused(wrong, words):
    with pytest.raises(UserError, match=words):
        InputOptions(**wrong)


def test_only_size_and_rate_are_wishes_to_a_camera():
    assert not InputOptions(flip="clockwise", loop=3, codec="h264", latency_ms=0).camera_wishes
    assert InputOptions(rate=5).camera_wishes
    assert InputOptions(width=2, height=1).camera_wishes
