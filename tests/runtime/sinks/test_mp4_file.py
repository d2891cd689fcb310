"""The boxes of an .mp4 at each moment of its life, walked by hand, and what OpenCV makes of them."""

import struct
from fractions import Fraction

import cv2
import numpy as np
import pytest

from fcnedge.runtime.sinks.mp4_file import Mp4File
from fcnedge.runtime.sinks.mpeg4 import Mpeg4Encoder, sequence_header


@pytest.fixture(scope="module")
def packets():
    encoder = Mpeg4Encoder((64, 48), 25)
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8)[:, None], (48, 1, 3))
    packets = [encoder.encode(np.roll(ramp, number, axis=1)) for number in range(30)]
    encoder.close()
    return packets


def written(path, packets):
    file = Mp4File(path, (64, 48), Fraction(25), sequence_header(packets[0]))
    for packet in packets:
        file.add(packet, key=bool(sequence_header(packet)))
    return file


def boxes(data):
    """Kind and content of each box of one level; they fill it to the last byte."""
    found, at = [], 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        start = 8
        if size == 1:
            size, start = struct.unpack_from(">Q", data, at + 8)[0], 16
        found.append((kind, data[at + start : at + size]))
        at += size
    assert at == len(data)
    return found


def frames(path):
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


def test_file_that_grows_is_fragmented_and_plays(tmp_path, packets):
    path = tmp_path / "a.mp4"
    for count in (1, 13, 30):
        file = written(path, packets[:count])
        assert [kind for kind, _ in boxes(path.read_bytes())] == [
            b"ftyp",
            b"free",
            b"moov",
            *[b"moof", b"mdat"] * count,
        ]
        assert file.frames == frames(path) == count
        file.finish()


def test_finished_file_is_one_block_of_data_and_its_index(tmp_path, packets):
    path = tmp_path / "a.mp4"
    written(path, packets).finish()
    assert [kind for kind, _ in boxes(path.read_bytes())] == [b"ftyp", b"free", b"mdat", b"moov"]
    assert frames(path) == 30


def test_index_points_at_every_packet(tmp_path, packets):
    path = tmp_path / "a.mp4"
    written(path, packets).finish()
    data = path.read_bytes()
    tables = dict(boxes(data))[b"moov"]
    for kind in (b"trak", b"mdia", b"minf", b"stbl"):
        tables = dict(boxes(tables))[kind]
    table = {
        kind: struct.unpack(f">{len(content) // 4}I", content) for kind, content in boxes(tables) if kind != b"stsd"
    }
    offsets = struct.unpack_from(">30Q", dict(boxes(tables))[b"co64"], 8)
    sizes = table[b"stsz"][3:]
    assert [data[at : at + size] for at, size in zip(offsets, sizes, strict=True)] == packets
    assert table[b"stss"][2:] == (1, 13, 25)  # a key frame every twelfth
    assert table[b"stts"] == (0, 1, 30, 1)


def test_process_that_is_killed_while_it_finishes_leaves_a_film(tmp_path, packets):
    path, killed = tmp_path / "a.mp4", tmp_path / "killed.mp4"
    file = written(path, packets)
    growing = path.read_bytes()
    file.finish()
    index = path.read_bytes()[len(growing) :]
    for there in (0, 4, 100, len(index)):  # the data's box is not yet made
        killed.write_bytes(growing + index[:there])
        assert frames(killed) == 30


def test_finishing_twice_does_nothing_more(tmp_path, packets):
    file = written(tmp_path / "a.mp4", packets)
    file.finish()
    before = (tmp_path / "a.mp4").read_bytes()
    file.finish()
    assert (tmp_path / "a.mp4").read_bytes() == before


@pytest.mark.parametrize("fps", [Fraction(1, 100), Fraction(2997, 100), Fraction(1000)])
def test_rate_is_kept_exactly(tmp_path, packets, fps):
    file = Mp4File(tmp_path / "a.mp4", (64, 48), fps, sequence_header(packets[0]))
    for packet in packets[:3]:
        file.add(packet, key=bool(sequence_header(packet)))
    assert cv2.VideoCapture(str(tmp_path / "a.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(float(fps))
    file.finish()
    assert cv2.VideoCapture(str(tmp_path / "a.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(float(fps))
