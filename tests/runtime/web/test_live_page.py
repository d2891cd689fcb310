"""The page as its user has it: opened, fed from any thread, refused in one sentence."""

import contextlib
import gc
import socket
import sys
import threading

import numpy as np
import pytest

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.streams.status import SourceState, SourceStatus
from fcnedge.runtime.web import LivePage


def test_port_in_use_is_one_sentence(page, open_page):
    with pytest.raises(UserError, match="is in use by another program; give the page another port") as refused:
        open_page(page.url)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside_its_range_is_refused(open_page, alpha):
    with pytest.raises(UserError, match="it must lie between 0"):
        open_page(alpha=alpha)


def test_opacity_and_unpainted_classes_are_told_to_the_browser(open_page, ask):
    report = ask(open_page(alpha=0.8, ignore=(0, 2)), "/status.json").json()
    assert report["alpha"] == 0.8
    assert [each["painted"] for each in report["classes"]] == [False, True, False]


def test_palette_that_its_owner_changes_later_stays_as_it_was(ask):
    palette = np.array([[0, 0, 0], [10, 20, 30]], np.uint8)
    with LivePage("http://127.0.0.1:0", palette, ("a", "b"), "tiny") as page:
        palette[:] = 255
        assert ask(page, "/status.json").json()["classes"][1]["colour"] == "#0a141e"


def test_statuses_are_what_was_given(page):
    assert page.statuses is None
    told = [SourceStatus("a", SourceState.ENDED)]
    page.statuses = lambda: told
    assert page.statuses() == told


def test_results_may_come_from_several_threads(page, ask, result):
    def publish(source):
        for sequence in range(200):
            page.publish(result(sequence, source=source))

    threads = [threading.Thread(target=publish, args=(f"camera://{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sources = ask(page, "/status.json").json()["sources"]
    assert sorted((source["uri"], source["processed"]) for source in sources) == [
        (f"camera://{number}", 200) for number in range(4)
    ]


def test_two_pages_of_one_host_keep_their_cookies_apart(open_page, ask):
    cookies = [
        ask(open_page(token="correct-horse.1"), "/?token=correct-horse.1").headers["set-cookie"] for _ in range(2)
    ]
    assert len({cookie.split("=")[0] for cookie in cookies}) == 2


def test_interpreter_ends_though_nobody_closed_the_page():
    import subprocess
    import sys

    program = (
        "import numpy as np; from fcnedge.runtime.web import LivePage; "
        "LivePage('http://127.0.0.1:0', np.zeros((1, 3), np.uint8), ('a',), 'tiny')"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_connections_that_come_while_the_page_closes_are_closed_with_it(open_page, monkeypatch):
    left_open = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: left_open.append(str(unraisable.exc_value)))
    for _ in range(30):
        page = open_page()
        port, clients = int(page.url.rstrip("/").rpartition(":")[2]), []

        def connect(port=port, clients=clients):
            with contextlib.suppress(OSError):  # the page is closed
                for _ in range(8):
                    clients.append(socket.create_connection(("127.0.0.1", port), timeout=30))

        thread = threading.Thread(target=connect)
        thread.start()
        page.close()
        thread.join()
        for client in clients:
            client.close()
        gc.collect()
    assert left_open == []
