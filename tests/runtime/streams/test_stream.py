"""One source, one model: order, newest frame, exact counts, states, errors and ends."""

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest

from fcnedge.runtime import Segmenter, SourceError, UserError
from fcnedge.runtime.sources import Frame, InputOptions, Source
from fcnedge.runtime.streams import SourceState, Stream, backoff

from .conftest import Camera, Film


def balanced(status):
    return status.captured == status.processed + status.dropped


# Films


def test_film_gives_every_frame_once_in_order_with_its_own_mask(segmenter):
    with Stream(Film(40), segmenter) as stream:
        results = list(stream)
    assert [result.sequence for result in results] == list(range(40))
    assert [result.frame.index for result in results] == list(range(40))
    assert [result.segmentation.mask.shape for result in results] == [(8, width + 1) for width in range(40)]
    assert {result.dropped for result in results} == {0}
    assert {result.source for result in results} == {"film"}
    assert all(result.finished_s >= result.captured_s and result.age_ms >= 0 for result in results)
    status = stream.status
    assert (status.state, status.captured, status.processed, status.dropped) == (SourceState.ENDED, 40, 40, 0)
    assert status.reason is None


def test_film_is_read_no_further_than_one_frame_ahead_of_the_waiting_one(segmenter, until):
    film = Film(100)
    with Stream(film, segmenter) as stream:
        next(stream)
        until(stream, lambda: stream.status.captured == 2)
        assert stream.status.processed == 1
        assert film.given <= 3  # one processed, one waiting, one in the hand that waits for its place
        next(stream)
        until(stream, lambda: stream.status.captured == 3)
        assert film.given <= 4
    assert film.closed == 1


def test_film_left_early_counts_its_waiting_frame_as_dropped(segmenter, until):
    with Stream(Film(100), segmenter) as stream:
        next(stream)
        until(stream, lambda: stream.status.captured == 2)
    status = stream.status
    assert (status.captured, status.processed, status.dropped) == (2, 1, 1)
    assert status.state is SourceState.ENDED


def test_film_that_breaks_off_gives_its_frames_and_then_its_error(segmenter):
    class Broken(Film):
        def __iter__(self):
            yield from super().__iter__()
            raise SourceError("the film broke")

    with Stream(Broken(5), segmenter) as stream:
        assert [next(stream).sequence for _ in range(5)] == list(range(5))
        with pytest.raises(SourceError, match="the film broke"):
            next(stream)
        assert list(stream) == []  # raised once
        assert stream.status.reason == "the film broke"


def test_bug_in_a_source_is_raised_as_it_is(segmenter):
    class Faulty(Film):
        def __iter__(self):
            yield from super().__iter__()
            raise ZeroDivisionError

    with Stream(Faulty(1), segmenter) as stream, pytest.raises(ZeroDivisionError):
        list(stream)


def test_picture_folder_of_mixed_sizes_streams(tmp_path, segmenter):
    import cv2

    sizes = [(20, 30), (40, 10), (33, 7)]
    for index, size in enumerate(sizes):
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((*size, 3), 255, np.uint8))
    with Stream(str(tmp_path), segmenter) as stream:
        results = list(stream)
    assert [result.segmentation.mask.shape for result in results] == sizes
    assert all((result.segmentation.mask == 7).all() for result in results)  # white: blue + 2·green + 4·red


def test_source_that_is_missing_is_refused_at_once(tmp_path, segmenter):
    with pytest.raises(SourceError, match="does not exist"):
        Stream(str(tmp_path / "none.mp4"), segmenter)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 1e9])
def test_stall_timeout_that_cannot_be_is_refused(segmenter, seconds):
    with pytest.raises(UserError, match="stall timeout"):
        Stream(Film(1), segmenter, stall_timeout_s=seconds)


def test_options_for_a_source_that_is_open_are_refused(segmenter):
    with pytest.raises(UserError, match="options go with a URI"):
        Stream(Film(1), segmenter, options=InputOptions(flip="vertical"))


# Cameras


def test_slow_model_sees_the_newest_frame_and_all_others_are_counted(gated, until, background):
    camera, results = Camera(), []
    with Stream(camera, gated) as stream:
        loop = background(lambda: stream.run(results.append))
        camera.show()
        gated.backend.wait_entered()  # frame 0 is in the model
        for count in range(2, 7):
            camera.show()
            until(stream, lambda count=count: stream.status.captured == count)
        status = stream.status
        assert (status.captured, status.processed, status.dropped) == (6, 0, 4)  # one in the model, one waiting
        gated.backend.let(1)
        gated.backend.wait_entered()
        gated.backend.let(1)
        until(stream, lambda: stream.status.processed == 2)
        status = stream.status
        assert (status.captured, status.processed, status.dropped) == (6, 2, 4)
        stream.close()
        loop.join()
    assert [(result.sequence, result.dropped) for result in results] == [(0, 0), (5, 4)]
    assert [result.frame.index for result in results] == [0, 5]


def test_lost_camera_is_opened_again_and_counted_on(segmenter, until, background, caplog):
    camera, results = Camera(), []
    with Stream(camera, segmenter) as stream:
        assert stream.status.state is SourceState.CONNECTING
        loop = background(lambda: stream.run(results.append))
        camera.show()
        until(stream, lambda: stream.status.processed == 1)
        assert stream.status.state is SourceState.LIVE
        camera.fail(SourceError("the cable is out"))
        until(stream, lambda: stream.status.state is SourceState.LOST)
        assert stream.status.reason == "the cable is out"
        camera.fail(SourceError("the cable is out"))  # the second attempt fails like the first
        camera.show()
        until(stream, lambda: stream.status.processed == 2)
        status = stream.status
        assert (status.state, status.connections, status.reason) == (SourceState.LIVE, 2, None)
        stream.close()
        loop.join()
    assert camera.opened == 3
    assert [result.sequence for result in results] == [0, 1]
    assert [record.message.split(" after ")[0] for record in caplog.records] == [
        "the cable is out; trying again",
        "camera is live again",
    ]


def test_camera_that_is_back_is_opened_before_the_back_off_is_over(segmenter, until, background, monkeypatch):
    monkeypatch.setattr(backoff, "FIRST_S", 7200.0)
    monkeypatch.setattr(backoff, "LONGEST_S", 7200.0)
    camera = Camera()
    camera.there = False
    with Stream(camera, segmenter) as stream:
        loop = background(lambda: list(stream))
        camera.fail(SourceError("away"))  # tried again at once
        camera.fail(SourceError("away"))  # and then not for an hour
        until(stream, lambda: camera.knocks)
        assert camera.opened == 2
        camera.there = True
        camera.show()
        until(stream, lambda: stream.status.state is SourceState.LIVE)
        stream.close()
        loop.join()


def test_camera_that_is_there_but_fails_is_not_hammered(segmenter, until, background, monkeypatch):
    monkeypatch.setattr(backoff, "FIRST_S", 7200.0)
    monkeypatch.setattr(backoff, "LONGEST_S", 7200.0)
    camera = Camera()
    camera.there = True
    with Stream(camera, segmenter) as stream:
        loop = background(lambda: list(stream))
        camera.fail(SourceError("wrong password"))
        camera.fail(SourceError("wrong password"))
        camera.show()
        until(stream, lambda: camera.knocks > 1)
        assert camera.opened == 2
        stream.close()  # and the wait of an hour does not hold up the end
        loop.join()


def test_lost_camera_without_reconnect_raises(segmenter):
    camera = Camera()
    camera.show()
    camera.fail(SourceError("the cable is out"))
    with Stream(camera, segmenter, reconnect=False) as stream:
        assert next(stream).sequence == 0
        with pytest.raises(SourceError, match="the cable is out"):
            next(stream)
    assert camera.opened == 1


def test_silent_camera_is_stalled_until_its_next_frame(segmenter, until, background, caplog):
    camera = Camera()
    with Stream(camera, segmenter, stall_timeout_s=0.01) as stream:
        loop = background(lambda: list(stream))
        camera.show()
        until(stream, lambda: stream.status.state is SourceState.STALLED)
        status = stream.status
        assert status.reason == "camera has sent nothing for 0.01 seconds"
        assert status.fps is None
        camera.show()
        until(stream, lambda: stream.status.captured == 2)
        stream.close()
        loop.join()
    assert [record.message for record in caplog.records].count(status.reason) in (1, 2)


def test_camera_that_never_opens_stays_connecting_and_says_so(segmenter, until, background, caplog):
    camera = Camera()
    with Stream(camera, segmenter, stall_timeout_s=0.01) as stream:
        loop = background(lambda: list(stream))
        until(stream, lambda: stream.status.reason)
        assert stream.status.state is SourceState.CONNECTING
        stream.close()
        loop.join()
    assert [record.message for record in caplog.records] == ["camera has sent nothing for 0.01 seconds"]


def test_frame_of_another_size_in_mid_stream_gets_a_mask_of_its_size(segmenter):
    camera = Camera()
    with Stream(camera, segmenter) as stream:
        shapes = []
        for size in ((32, 48), (480, 640), (7, 5)):
            camera.show(np.zeros((*size, 3), np.uint8))
            shapes.append(next(stream).segmentation.mask.shape)
    assert shapes == [(32, 48), (480, 640), (7, 5)]


def test_frame_that_the_model_refuses_is_raised_and_counted_as_dropped(segmenter):
    camera = Camera()
    with Stream(camera, segmenter) as stream:
        camera.show(np.zeros((4, 4), np.uint8))
        with pytest.raises(UserError, match="a frame is"):
            next(stream)
        camera.show()
        assert next(stream).sequence == 1
        status = stream.status
        assert (status.captured, status.processed, status.dropped) == (2, 1, 1)


def test_results_are_not_written_to_later(segmenter):
    camera = Camera()
    with Stream(camera, segmenter) as stream:
        camera.show(np.full((32, 48, 3), 255, np.uint8))
        first = next(stream)
        camera.show()
        next(stream)
    assert (first.frame.image == 255).all()
    assert (first.segmentation.mask == 7).all()


# Ends


def test_close_ends_an_iteration_that_waits_in_another_thread(segmenter, until, background):
    camera = Camera()
    stream = Stream(camera, segmenter)
    loop = background(lambda: list(stream))
    until(stream, lambda: camera.opened)
    stream.close()
    loop.join()
    stream.close()
    assert list(stream) == []
    assert stream.status.state is SourceState.ENDED


def test_stream_that_was_never_begun_closes_its_source(segmenter):
    film = Film(3)
    with Stream(film, segmenter) as stream:
        pass
    assert film.closed == 1
    assert list(stream) == []
    assert film.given == 0


def test_camera_whose_read_hangs_does_not_hang_close(segmenter, until, background):
    hanging = threading.Event()

    class Hanging(Source):
        def __init__(self):
            super().__init__("hanging", live=True)

        def __iter__(self):
            yield Frame(np.zeros((8, 8, 3), np.uint8), "frame", 0, 0.0)
            hanging.wait(60)  # a driver's call: no close reaches it
            yield Frame(np.zeros((8, 8, 3), np.uint8), "frame", 1, 0.0)

    stream = Stream(Hanging(), segmenter)
    next(stream)
    stream.close()  # returns: this line is the test
    assert stream.status.captured == 1
    [thread] = [each for each in threading.enumerate() if each.name == "fcnedge capture hanging"]
    assert thread.daemon
    hanging.set()
    thread.join(60)
    assert not thread.is_alive()
    status = stream.status
    assert balanced(status)
    assert (status.state, status.captured) == (SourceState.ENDED, 1)  # what it brought too late counts as nothing


def test_fifty_streams_leave_no_thread_and_no_descriptor(segmenter, tmp_path, held):
    import cv2

    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (32, 16))
    for _ in range(4):
        writer.write(np.zeros((16, 32, 3), np.uint8))
    writer.release()
    before = None
    for turn in range(50):
        with Stream(str(path), segmenter) as stream:
            next(stream)
            if turn % 2:
                assert len(list(stream)) == 3
        if turn == 5:  # OpenCV's own pool starts with its first use
            before = held()
    assert held(before) == before


def test_async_for_gives_the_same_results_and_leaves_the_loop_free(segmenter):
    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        with Stream(Film(10), segmenter) as stream:
            sequences = [result.sequence async for result in stream]
        ticking.cancel()
        return sequences, ticks

    sequences, ticks = asyncio.run(main())
    assert sequences == list(range(10))
    assert ticks > 10


def test_model_may_be_anything_that_segments(tiny_bundle, segmenter):
    class Counting:
        frames = 0

        def segment(self, frame):
            self.frames += 1
            return replace(segmenter.segment(frame), infer_ms=1.5)

    counting = Counting()
    assert isinstance(segmenter, Segmenter)
    with Stream(Film(3), counting) as stream:
        assert [result.segmentation.infer_ms for result in stream] == [1.5] * 3
    assert counting.frames == 3
