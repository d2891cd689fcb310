"""Several sources and consumers: turns, order, backpressure, newest results, failures and ends."""

import threading

import numpy as np
import pytest

from fcnedge.runtime import SourceError, UserError
from fcnedge.runtime.streams import Pipeline, SourceState

from .conftest import Camera, Film


def test_films_take_turns_and_each_keeps_its_order(segmenter):
    results = []
    with Pipeline([Film(20, "a"), Film(20, "b"), Film(20, "c")], segmenter, [results.append]) as pipeline:
        pipeline.run()
        statuses = pipeline.statuses
    assert {each.source for each in results} == {"a", "b", "c"}
    for name in "abc":
        assert [each.sequence for each in results if each.source == name] == list(range(20))
    assert [(each.uri, each.state, each.processed, each.dropped) for each in statuses] == [
        (name, SourceState.ENDED, 20, 0) for name in "abc"
    ]


def test_turns_are_fair_when_all_sources_always_have_a_frame(gated, until, background):
    cameras = [Camera(name) for name in "abc"]
    results = []
    with Pipeline(cameras, gated, [lambda result: results.append(result.source)]) as pipeline:
        running = background(pipeline.run)
        captured = [0, 0, 0]
        for turn in range(12):
            for place, camera in enumerate(cameras):
                camera.show()
                captured[place] += 1
            until(pipeline, lambda: [each.captured for each in pipeline.statuses] == captured)
            gated.backend.wait_entered()
            gated.backend.let(1)
            until(pipeline, lambda turn=turn: sum(each.processed for each in pipeline.statuses) == turn + 1)
        pipeline.close()
        gated.backend.let(3)
        running.join()
    first = results[0]
    order = "abc"["abc".index(first) :] + "abc"["abc".index(first) + 1 :] + "abc"
    assert results[1:4] != [first] * 3
    assert {name: results[3:12].count(name) for name in "abc"} == dict.fromkeys("abc", 3), (results, order)


def test_slow_consumer_holds_up_a_film_and_loses_nothing(segmenter, until, background):
    gate, quick, slow = threading.Semaphore(0), [], []

    def slowly(result):
        assert gate.acquire(timeout=60)
        slow.append(result.sequence)

    film = Film(30)
    with Pipeline([film], segmenter, [quick.append, slowly]) as pipeline:
        running = background(pipeline.run)
        until(pipeline, lambda: pipeline.statuses[0].processed == 3)  # one in the slow consumer's hands, two waiting
        assert film.given <= 6
        gate.release(30)
        running.join()
        assert [(each.taken, each.dropped) for each in pipeline.outputs] == [(30, 0), (30, 0)]
    assert slow == [result.sequence for result in quick] == list(range(30))


def test_slow_consumer_of_a_camera_gets_the_newest_result_and_holds_up_nobody(segmenter, until, background):
    gate, quick, slow = threading.Semaphore(0), [], []

    def slowly(result):
        slow.append(result.sequence)
        assert gate.acquire(timeout=60)

    camera = Camera()
    with Pipeline([camera], segmenter, [lambda result: quick.append(result.sequence), slowly]) as pipeline:
        running = background(pipeline.run)
        for count in range(1, 8):
            camera.show()
            until(pipeline, lambda count=count: pipeline.statuses[0].processed == count)
            until(pipeline, lambda count=count: pipeline.outputs[0].taken == count)
            until(pipeline, lambda: pipeline.outputs[1].taken)
        gate.release(2)
        until(pipeline, lambda: pipeline.outputs[1].taken == 2)
        assert pipeline.outputs[1].dropped == 5
        pipeline.close()
        running.join()
    assert quick == list(range(7))
    assert slow == [0, 6]


def test_film_beside_a_camera_gives_all_and_a_stuck_consumer_of_it_does_not_stop_the_camera(
    segmenter, until, background
):
    gate = threading.Semaphore(0)
    seen = {"camera": [], "film": []}

    def consume(result):
        if result.source == "film":
            assert gate.acquire(timeout=60)
        seen[result.source].append(result.sequence)

    camera = Camera()
    with Pipeline([Film(9), camera], segmenter, [consume]) as pipeline:
        running = background(pipeline.run)
        until(pipeline, lambda: pipeline.statuses[0].processed == 3)  # the film waits for its consumer
        for count in range(1, 6):
            camera.show()
            until(pipeline, lambda count=count: pipeline.statuses[1].processed == count)
        assert pipeline.statuses[0].processed == 3
        gate.release(9)
        until(pipeline, lambda: pipeline.statuses[0].processed == 9)
        pipeline.close()
        running.join()
    assert seen["film"] == list(range(9))
    assert seen["camera"][-1] == 4


def test_consumer_that_raises_ends_the_run_with_its_error(segmenter, until):
    def full(result):
        raise UserError("the disk is full")

    camera = Camera()
    with Pipeline([camera], segmenter, [full]) as pipeline:
        camera.show()  # and nothing more: the error does not wait for another frame
        with pytest.raises(UserError, match="the disk is full"):
            pipeline.run()
        assert pipeline.statuses[0].state is SourceState.ENDED


def test_source_that_cannot_be_opened_is_named_and_the_next_goes_on(tmp_path, segmenter, caplog):
    results = []
    with Pipeline([str(tmp_path / "none.mp4"), Film(3)], segmenter, [results.append]) as pipeline:
        pipeline.run()
        broken, film = pipeline.statuses
    assert len(results) == 3
    assert (broken.state, film.state) == (SourceState.ENDED, SourceState.ENDED)
    assert broken.reason.endswith("none.mp4 does not exist")
    assert [record.message for record in caplog.records] == [broken.reason]


def test_source_that_fails_in_mid_run_is_named_and_the_next_goes_on(segmenter, caplog):
    class Broken(Film):
        def __iter__(self):
            yield from super().__iter__()
            raise SourceError("the film broke")

    with Pipeline([Broken(2, "broken"), Film(8)], segmenter) as pipeline:
        pipeline.run()
        broken, film = pipeline.statuses
    assert (broken.processed, film.processed) == (2, 8)
    assert [record.message for record in caplog.records] == [broken.reason] == ["the film broke"]


@pytest.mark.parametrize("count", [1, 2])
def test_when_all_sources_fail_the_first_error_is_raised(segmenter, tmp_path, count):
    with pytest.raises(SourceError, match=r"0\.mp4 does not exist"):
        Pipeline([str(tmp_path / f"{index}.mp4") for index in range(count)], segmenter)

    class Broken(Film):
        def __iter__(self):
            raise SourceError(f"{self.uri} broke")
            yield

    with (
        Pipeline([Broken(1, str(index)) for index in range(count)], segmenter) as pipeline,
        pytest.raises(SourceError, match="0 broke"),
    ):
        pipeline.run()


@pytest.mark.parametrize("sources", [[], "demo://clip"])
def test_what_is_no_list_of_sources_is_refused(segmenter, sources):
    with pytest.raises(UserError, match="list of one source or more"):
        Pipeline(sources, segmenter)


def test_run_ends_after_the_frames_asked_for(segmenter):
    results = []
    with Pipeline([Film(50)], segmenter, [results.append]) as pipeline:
        pipeline.run(frames=7)
        status = pipeline.statuses[0]
    assert [each.sequence for each in results] == list(range(7))
    assert status.processed == 7
    assert status.captured == status.processed + status.dropped


def test_interrupt_in_the_model_lets_consumers_finish_and_goes_on(segmenter):
    class Interrupted:
        frames = 0

        def segment(self, frame):
            self.frames += 1
            if self.frames == 5:
                raise KeyboardInterrupt
            return segmenter.segment(frame)

    results = []
    with Pipeline([Film(50)], Interrupted(), [results.append]) as pipeline:
        with pytest.raises(KeyboardInterrupt):
            pipeline.run()
        assert [each.sequence for each in results] == list(range(4))
        status = pipeline.statuses[0]
    assert status.captured == status.processed + status.dropped
    assert (status.processed, status.state) == (4, SourceState.ENDED)


def test_pipelines_leave_no_thread_behind(segmenter, held):
    before = None
    for _ in range(20):
        cameras = [Camera(name) for name in "ab"]
        for camera in cameras:
            camera.show(np.zeros((8, 8, 3), np.uint8))
        with Pipeline([*cameras, Film(3)], segmenter, [lambda result: None, lambda result: None]) as pipeline:
            pipeline.run(frames=5)
        before = before or held()
    assert held(before) == before


def test_result_says_at_which_place_its_source_stands_also_behind_one_that_was_not_opened(tmp_path, segmenter):
    results = []
    with Pipeline([str(tmp_path / "none.mp4"), Film(2, "same"), Film(3, "same")], segmenter) as pipeline:
        assert [source.uri if source else None for source in pipeline.sources] == [None, "same", "same"]
        pipeline.add(results.append)
        pipeline.run()
    assert [sum(each.place == place for each in results) for place in range(3)] == [0, 2, 3]


def test_consumer_of_one_source_gets_all_of_it_and_nothing_else(segmenter):
    first, second, both = [], [], []
    with Pipeline([Film(9, "a"), Film(7, "b")], segmenter, [both.append]) as pipeline:
        pipeline.add(lambda result: first.append((result.source, result.sequence)), 0)
        pipeline.add(lambda result: second.append((result.source, result.sequence)), 1)
        pipeline.run()
        with pytest.raises(RuntimeError, match="before the pipeline runs"):
            pipeline.add(both.append)
    assert first == [("a", index) for index in range(9)]
    assert second == [("b", index) for index in range(7)]
    assert len(both) == 16


def test_stuck_consumer_of_one_film_holds_up_no_other_film(segmenter, until, background):
    gate, done = threading.Semaphore(0), []

    def stuck(result):
        assert gate.acquire(timeout=60)

    with Pipeline([Film(20, "a"), Film(20, "b")], segmenter) as pipeline:
        pipeline.add(stuck, 0)
        pipeline.add(done.append, 1)
        running = background(pipeline.run)
        until(pipeline, lambda: pipeline.statuses[1].processed == 20)
        assert pipeline.statuses[0].processed == 3
        gate.release(20)
        running.join()
    assert len(done) == 20


def test_failures_after_the_last_result_are_logged_too_and_of_all_one_is_raised(segmenter, caplog):
    class Broken(Film):
        def __iter__(self):
            raise SourceError(f"{self.uri} broke")
            yield

    with Pipeline([Broken(1, "a"), Film(0, "b"), Broken(1, "c")], segmenter) as pipeline:
        pipeline.run()
    assert sorted(record.message for record in caplog.records) == ["a broke", "c broke"]
    caplog.clear()
    with Pipeline([Broken(1, "a"), Broken(1, "c")], segmenter) as pipeline, pytest.raises(SourceError) as caught:
        pipeline.run()
    assert sorted([str(caught.value), *(record.message for record in caplog.records)]) == ["a broke", "c broke"]


def test_every_source_that_cannot_be_opened_is_named(segmenter, tmp_path, caplog):
    with pytest.raises(SourceError, match=r"0\.mp4 does not exist"):
        Pipeline([str(tmp_path / f"{index}.mp4") for index in range(3)], segmenter)
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}/{index}.mp4 does not exist" for index in (1, 2)
    ]


def test_interrupt_while_the_last_results_are_written_lets_consumers_finish_too(segmenter, monkeypatch):
    writing, results = threading.Event(), []

    def write(result):
        writing.set()
        assert released.wait(60)
        results.append(result.sequence)

    released, pipeline = threading.Event(), Pipeline([Film(2)], segmenter, [write])
    join, joins = pipeline._outputs[0].join, []

    def interrupted(timeout_s):
        joins.append(timeout_s)
        if len(joins) == 1:
            assert writing.wait(60)
            raise KeyboardInterrupt  # as Ctrl-C does between two waits
        released.set()
        return join(timeout_s)

    monkeypatch.setattr(pipeline._outputs[0], "join", interrupted)
    with pipeline, pytest.raises(KeyboardInterrupt):
        pipeline.run()
    assert results == [0, 1]


def test_interrupt_while_sources_are_opened_closes_those_that_are(segmenter):
    film = Film(1)

    def interrupted(uri, options):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pipeline([film, "camera"], segmenter, opener=interrupted)
    assert film.closed == 1


def test_what_is_drawn_in_the_thread_of_run_reaches_every_consumer(segmenter):
    threads, one, other = set(), [], []

    def drawer(result):
        threads.add(threading.get_ident())
        return result.frame.image + result.sequence

    with Pipeline([Film(5)], segmenter, [one.append, other.append]) as pipeline:
        pipeline.draw(drawer)
        pipeline.run()
        with pytest.raises(RuntimeError, match="before the pipeline runs"):
            pipeline.draw(drawer)
    assert threads == {threading.get_ident()}
    for results in (one, other):
        assert [(each.picture.shape, each.picture.max()) for each in results] == [((8, n + 1, 3), n) for n in range(5)]
        assert all(each.drawn_ms > 0 for each in results)


def test_what_the_drawer_raises_ends_the_run(segmenter):
    with Pipeline([Film(5)], segmenter, [lambda result: None]) as pipeline:
        pipeline.draw(lambda result: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            pipeline.run()
