"""fcn-run --ray on a real local Ray: every recording exactly once, whoever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytest.importorskip("ray.data", reason="the extra ray is not installed")

WATCHDOG_S = 240


@pytest.fixture(autouse=True)
def ray_of_its_own(tmp_path_factory, monkeypatch):
    """Keep Ray's sockets in a folder with a short name, apart from any other Ray's."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path_factory.mktemp("r")))


def batch(command, *words):
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=WATCHDOG_S, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def workers(pid: int) -> list[int]:
    """Processes below `pid` that Ray runs actors in."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(ValueError, OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(entry.name)] = (entry / "cmdline").read_bytes()

    def below(each: int) -> bool:
        while each in parents and each != pid:
            each = parents[each]
        return each == pid

    return [each for each, title in titles.items() if title.startswith(b"ray::") and b"Masker" in title and below(each)]


def wait_for(condition, process):
    until = time.monotonic() + WATCHDOG_S
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def test_masks_and_statistics_of_good_and_bad_recordings(tmp_path, command, film, pictures, read_batch):
    (tmp_path / "bad.mp4").write_bytes(b"\0" * 500)
    shots = pictures("shots", "green", 3)
    words = (film("blue", 12), film("red", 7), tmp_path / "bad.mp4", shots, tmp_path / "out", "--ray", "local")
    code, out, errors = batch(command, *words, "--json", tmp_path / "result.json")
    assert code == 2
    (error,) = errors
    assert error.startswith(f"fcn-run: 1 recording could not be masked because {tmp_path}/bad.mp4 is neither")
    assert out[0] == "masked   5 recordings, 0 were masked before, 1 failed"
    found = read_batch(tmp_path / "out")
    assert {name: (entry["frames"], set().union(*masks.values())) for name, (entry, masks) in found.items()} == {
        "blue.avi": (12, {1}),
        "red.avi": (7, {4}),
        "bad.mp4": (0, set()),
        **{f"{number}.png": (1, {2}) for number in range(3)},
    }
    result = json.loads((tmp_path / "result.json").read_text())
    counts = [result[name] for name in ("done", "kept", "frames")]
    assert (counts, list(result["failed"])) == ([5, 0, 22], [str(tmp_path / "bad.mp4")])
    assert result["classes"] == pytest.approx({"blue": 12 / 22, "red": 7 / 22, "green": 3 / 22})

    film("red", 9)  # changed since; the others are done
    code, out, _ = batch(command, *words)
    assert (code, out[0]) == (2, "masked   1 recordings, 4 were masked before, 1 failed")
    assert len(read_batch(tmp_path / "out")["red.avi"][1]) == 9


def test_a_worker_that_is_killed_costs_no_recording_and_makes_none_twice(tmp_path, command, film, read_batch):
    films = [film("blue", 1500, f"film{number}") for number in range(4)]
    out = tmp_path / "out"
    with subprocess.Popen(
        command(*films, out, "--ray", "local"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: list(out.glob("masks/*/*_000100.png")), process)
        victim = wait_for(lambda: workers(process.pid), process)[0]
        begun = {path.name for path in out.glob("statistics/.*.tries")}
        assert begun, "a recording is under way"
        os.kill(victim, signal.SIGKILL)
        shown, errors = process.communicate(timeout=WATCHDOG_S)
    assert (process.returncode, errors) == (0, "")
    assert shown.splitlines()[0] == "masked   4 recordings, 0 were masked before, 0 failed"
    for entry, masks in read_batch(out).values():
        assert (entry["frames"], len(masks), set().union(*masks.values())) == (1500, 1500, {1})


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_batch_that_was_ended_goes_on_with_the_rest(tmp_path, command, film, read_batch, number):
    films, out = [film("red", 3, "short"), film("blue", 1500, "long")], tmp_path / "out"
    words = command(*films, out, "--ray", "local")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(
            lambda: list(out.glob("statistics/short*.json")) and list(out.glob("masks/*/long_000100.png")), process
        )
        process.send_signal(number)
        shown, errors = process.communicate(timeout=WATCHDOG_S)
    assert (process.returncode, shown, errors) == {
        signal.SIGKILL: (-9, "", ""),
        signal.SIGTERM: (143, "", "fcn-run: terminated.\n"),
    }[number]
    code, lines, errors = batch(command, *films, out, "--ray", "local")
    assert (code, errors) == (0, [])
    # Orphaned by SIGKILL, a worker may still have ended the long one before Ray ended it.
    assert lines[0] in {f"masked   {2 - kept} recordings, {kept} were masked before, 0 failed" for kept in (1, 2)}
    assert {name: len(masks) for name, (_, masks) in read_batch(out).items()} == {"short.avi": 3, "long.avi": 1500}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("{out}", "--ray", "127.0.0.1:1"), "no Ray cluster answers at 127.0.0.1:1 ("),
        (("{out}", "--ray", "local", "--frames", "3"), "--frames does not go with --ray, "),
        (("{out}", "--ray", "local", "--visualize", "mask"), "--visualize does not go with --ray, "),
        (("null://", "--ray", "local"), "--ray writes into a folder, or a URI such as s3://bucket/masks, and null:// "),
        (("masks.mp4", "--ray", "local"), "--ray writes into a folder, or a URI such as s3://bucket/masks, and masks."),
        (("--ray", "local"), "--ray writes into a folder, or a URI such as s3://bucket/masks, and nothing is named"),
        (("{here}", "--ray", "local"), "{here} holds files that no batch wrote; "),
        (
            ("{out}", "--ray", "local", "--threads", "999"),
            "the Ray cluster has no 999 cores for --threads 999; ",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(words, complaint, tmp_path, command, film):
    places = {"out": tmp_path / "out", "here": tmp_path}
    path = film("blue", 2)
    code, _, errors = batch(command, path, *(word.format(**places) for word in words))
    assert (code, len(errors)) == (2, 1)
    assert errors[0].startswith(f"fcn-run: {complaint.format(**places)}")
