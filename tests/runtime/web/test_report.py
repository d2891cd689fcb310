"""status.json says what a person beside the robot would ask."""

import pytest

from fcnedge.runtime.streams.status import SourceState, SourceStatus


def test_status_tells_model_classes_and_colours(page, ask):
    report = ask(page, "/status.json").json()
    assert (report["model"], report["alpha"], report["viewers"], report["sources"]) == ("tiny, fake fp32", 0.5, 0, [])
    assert report["classes"] == [
        {"name": "background", "colour": "#000000", "painted": False},
        {"name": "road", "colour": "#800000", "painted": True},
        {"name": "person", "colour": "#008000", "painted": True},
    ]


def test_words_of_the_model_may_change(page, ask):
    page.model = "tiny, CPU"
    assert ask(page, "/status.json").json()["model"] == "tiny, CPU"


def test_source_is_told_as_its_status_and_its_newest_result(page, ask, result):
    reason = "The camera closed the connection; trying again in 2 s."
    status = SourceStatus("camera://0", SourceState.LOST, 9, 5, 4, 2, 29.5, reason)
    page.statuses = lambda: [status, SourceStatus("camera://1", SourceState.CONNECTING)]
    page.publish(result(8, ago_s=12.0, age_s=0.5))
    first, second = ask(page, "/status.json").json()["sources"]
    assert 12.0 <= first.pop("silent_s") < 100.0
    assert first.pop("age_ms") == pytest.approx(500.0)
    assert first == {
        "uri": "camera://0",
        "state": "lost",
        "reason": reason,
        "camera_fps": 29.5,
        "fps": None,
        "captured": 9,
        "processed": 5,
        "dropped": 4,
        "connections": 2,
        "width": 64,
        "height": 48,
        "stages_ms": {"preprocess": 1.0, "infer": 20.0, "head": 2.0},
        "shares": [[1, 0.5], [0, 0.25], [2, 0.25]],
    }
    assert (second["uri"], second["state"], second["age_ms"]) == ("camera://1", "connecting", None)


def test_statuses_that_fail_are_logged_and_end_no_page(page, ask, connect, caplog):
    page.statuses = lambda: 1 / 0
    client = connect(page)
    with pytest.raises(EOFError):
        client.get("/status.json")
    assert "ZeroDivisionError" in caplog.text
    assert ask(page, "/").status == 200
