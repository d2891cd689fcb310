"""One worker by itself: masks, statistics, what is wrong with one recording and what is wrong for all."""

from __future__ import annotations

import dataclasses
import json

import pytest

from fcnedge.runtime import Bundle
from fcnedge.runtime.batch.masker import TRIES, Job, Masker, model_name, packed
from fcnedge.runtime.batch.recordings import find_recordings
from fcnedge.runtime.batch.storage import Storage

pytest.importorskip("pyarrow", reason="the extra ray is not installed")


@pytest.fixture
def job(tiny_bundle, tmp_path):
    model = model_name(Bundle.load(tiny_bundle), "auto", "linear")
    Storage.at(str(tmp_path / "out")).make_folder("statistics")
    return Job(str(tiny_bundle), "run", model, str(tmp_path / "out"), "fake", "auto", "linear", None)


def masked(job, path, masker=None):
    (recording,) = find_recordings([str(path)]).found
    return (masker or Masker(job))(dataclasses.asdict(recording))


def entry_of(answer):
    assert (answer["refusal"], answer["bug"]) == ("", "")
    return json.loads(answer["entry"])


def test_a_picture_has_one_mask_and_a_film_a_folder(job, film, pictures, tmp_path):
    picture = entry_of(masked(job, pictures("shots", "red", 1)))
    assert (picture["frames"], picture["classes"], picture["error"]) == (1, {"red": 1.0}, None)
    assert (tmp_path / "out" / picture["masks"]).read_bytes()[:4] == b"\x89PNG"
    blue = entry_of(masked(job, film("blue", 5)))
    assert (blue["frames"], blue["classes"]) == (5, {"blue": 1.0})
    assert len(list((tmp_path / "out" / blue["masks"]).iterdir())) == 5


def test_a_damaged_recording_is_an_entry_with_the_reason(job, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"\0" * 500)
    entry = entry_of(masked(job, tmp_path / "bad.mp4"))
    assert (entry["frames"], entry["masks"], entry["classes"]) == (0, None, {})
    assert entry["error"].startswith(f"{tmp_path}/bad.mp4 is neither a picture nor a video")


def test_what_a_worker_that_was_ended_left_is_replaced(job, film, tmp_path):
    path = film("blue", 3)
    (recording,) = find_recordings([str(path)]).found
    left = tmp_path / "out" / "masks" / recording.key
    left.mkdir(parents=True)
    (left / "blue_000099.png").write_bytes(b"half")
    entry_of(masked(job, path))
    assert sorted(each.name for each in left.iterdir()) == [f"blue_{index:06d}.png" for index in range(3)]


def test_what_is_done_is_not_done_again_unless_the_file_or_the_model_is_another(job, film, tmp_path):
    path = film("blue", 3)
    first = entry_of(masked(job, path))
    assert entry_of(masked(job, path)) == first  # seconds included
    film("blue", 4)
    assert entry_of(masked(job, path))["frames"] == 4
    other = entry_of(masked(dataclasses.replace(job, model="another"), path))
    assert (other["model"], other["frames"]) == ("another", 4)


def test_a_recording_that_ends_its_workers_is_given_up(job, film, tmp_path):
    path = film("blue", 3)
    (recording,) = find_recordings([str(path)]).found
    marker = tmp_path / "out" / "statistics" / f".{recording.key}.tries"
    marker.write_text(f"{job.run} {TRIES - 1}")
    assert entry_of(masked(job, path))["frames"] == 3
    assert not marker.exists()
    (tmp_path / "out" / "statistics" / f"{recording.key}.json").unlink()
    marker.write_text(f"{job.run} {TRIES}")
    entry = entry_of(masked(job, path))
    assert (entry["frames"], entry["error"]) == (0, f"{TRIES} workers were ended by the system over it, "
                                                    "for want of memory or by damage in it")  # fmt: skip
    marker.write_text(f"another {TRIES}")
    assert entry_of(masked(job, path))["frames"] == 3


def test_a_packed_bundle_needs_no_folder(job, film, tiny_bundle):
    job = dataclasses.replace(job, bundle=packed(Bundle.load(tiny_bundle)))
    for path in tiny_bundle.iterdir():
        path.unlink()
    assert entry_of(masked(job, film("red", 2)))["classes"] == {"red": 1.0}


def test_what_is_wrong_for_all_is_a_refusal(job, film):
    answer = masked(dataclasses.replace(job, backend="nonsense"), film("red", 2))
    assert "nonsense" in answer["refusal"]
    assert (answer["entry"], answer["bug"]) == ("", "")


def test_a_bug_comes_with_its_traceback(job, film, monkeypatch):
    masker = Masker(job)
    monkeypatch.setattr(masker, "_open", lambda: 1 / 0)
    assert "ZeroDivisionError" in masked(job, film("red", 2), masker)["bug"]


def test_recordings_and_output_elsewhere(job, film, tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/elsewhere/red.avi", film("red", 3).read_bytes())
    Storage.at("memory://out").make_folder("statistics")
    entry = entry_of(masked(dataclasses.replace(job, out="memory://out"), "memory://elsewhere/red.avi"))
    assert entry["frames"] == 3
    assert len(memory.ls(f"/out/{entry['masks']}")) == 3
