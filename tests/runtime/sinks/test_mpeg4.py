"""OpenCV's MPEG-4 encoder, a packet for each picture."""

import threading

import numpy as np
import pytest

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.sinks.mpeg4 import Mpeg4Encoder, sequence_header


def test_every_picture_gives_its_packet_at_once(noise):
    threads = threading.active_count()
    encoder = Mpeg4Encoder((320, 240), 25)
    picture = noise(240, 320)
    packets = [encoder.encode(np.roll(picture, number, axis=1)) for number in range(26)]
    encoder.close()
    encoder.close()
    assert [packet.count(b"\0\0\1\xb6") for packet in packets] == [1] * 26
    assert [number for number, packet in enumerate(packets) if sequence_header(packet)] == [0, 12, 24]
    assert threading.active_count() == threads


def test_header_is_what_stands_before_the_picture():
    header = b"\0\0\1\xb0\1\0\0\1\x20\x88"
    assert sequence_header(header + b"\0\0\1\xb3\5\0\0\1\xb6\1") == header
    assert sequence_header(header + b"\0\0\1\xb6\1") == header
    assert sequence_header(b"\0\0\1\xb6\1\0\0\1\xb3") == b""
    assert sequence_header(b"nothing") == b""


def test_size_that_mpeg4_has_not_is_one_sentence():
    with pytest.raises(UserError, match=r"has no MPEG-4 encoder for 16384x16 at 25 frames per second; name a \.avi"):
        Mpeg4Encoder((16384, 16), 25)


def test_temporary_folder_that_is_full_or_gone_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"no temporary file can be made \(No such file or directory\); set TMPDIR"):
        Mpeg4Encoder((64, 48), 25)


@pytest.mark.parametrize("values", [[0] * 5, range(0, 250, 10)])
def test_encoder_is_left_with_nothing_to_say(values):
    """No packet waits for the next picture, and none is left over when it closes."""
    encoder = Mpeg4Encoder((64, 48), 1)
    for value in values:
        encoder.encode(np.full((48, 64, 3), value, np.uint8))
        assert bytes(encoder._rest) == b""
        assert encoder._arrived.empty()
    encoder.close()
    assert encoder._arrived.get() == b""
