"""The server answers a fixed table of paths, and no viewer costs the pipeline anything."""

import base64
import hashlib
import os
import re
import socket
import threading
import time
import zlib

import cv2
import numpy as np
import pytest

from fcnedge.runtime.web import server as server_module
from fcnedge.runtime.web.pictures import JPEG_KINDS
from fcnedge.runtime.web.server import Limits

STREAMS = ("/stream/layers", *(f"/stream/{kind}.mjpg" for kind in JPEG_KINDS))


def viewers(ask, page):
    return ask(page, "/status.json").json()["viewers"]


# The table


def test_page_allows_its_own_script_and_style_and_nothing_else(page, ask):
    answer = ask(page, "/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.body.decode(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert (policy["default-src"], policy["frame-ancestors"], policy["connect-src"]) == ("'none'", "'none'", "'self'")
    addresses = re.findall(r"https?://[^'\"\s)]+", answer.body.decode())
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}, "the page needs nothing from elsewhere"


@pytest.mark.parametrize(
    "path",
    [
        "/page.html",
        "/index.html",
        "/favicon.ico",
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/stream/../page.html",
        "/stream/",
        "/stream/raw.mjpg/",
        "//status.json",
        "/status.json%00",
        "/Status.json",
        "/stream/..%5c..%5cpage.html",
    ],
)
def test_what_is_not_in_the_table_is_not_there(page, ask, path):
    answer = ask(page, path)
    assert answer.status == 404
    assert answer.body == b"There is no such page; the live page is at /.\n"


@pytest.mark.parametrize("path", ["/", "/status.json", "/nothing", *STREAMS])
def test_every_answer_has_the_headers_that_hold_a_browser_back(page, ask, path):
    headers = ask(page, path, "HEAD").headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "server" not in headers


@pytest.mark.parametrize("path", ["/", "/status.json", *STREAMS])
def test_head_is_the_head_alone(page, ask, path):
    assert ask(page, path, "HEAD").body == b""


def test_first_source_may_be_watched_before_it_has_said_a_word_and_no_other(page, ask, connect, result):
    client = connect(page)
    assert client.get("/stream/layers").status == 200
    page.publish(result(3))
    assert client.layers()[0]["sequence"] == 3
    for source in ("1", "-1", "x", "", "9999"):
        assert ask(page, f"/stream/layers?source={source}").status == 404


def test_each_source_has_its_streams(page, connect, result):
    page.publish(result(1, source="a"))
    page.publish(result(2, source="b"))
    for number, sequence in enumerate((1, 2)):
        client = connect(page)
        client.get(f"/stream/layers?source={number}")
        assert client.layers()[0]["sequence"] == sequence


# Streams


def test_stream_brings_what_is_published(page, connect, result):
    client = connect(page)
    client.get("/stream/layers")
    for sequence in range(5):
        page.publish(result(sequence))
        words, jpeg, ids = client.layers()
        assert words["sequence"] == sequence
        assert zlib.decompress(ids) == result(sequence).segmentation.mask.tobytes()
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (48, 64, 3)


@pytest.mark.parametrize("kind", JPEG_KINDS)
def test_mjpeg_stream_brings_what_is_published(page, connect, result, kind):
    client = connect(page)
    answer = client.get(f"/stream/{kind}.mjpg")
    assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
    assert client.take(9) == b"--frame\r\n"
    for sequence in range(3):
        page.publish(result(sequence))
        assert client.jpeg().shape == (48, 64, 3)


def test_opencv_plays_the_stream(page, result):
    """A program of others: FFmpeg's reader of multipart JPEG."""
    stop = threading.Event()

    def publish():
        sequence = 0
        while not stop.wait(0.01):
            page.publish(result(sequence))
            sequence += 1

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        capture = cv2.VideoCapture(f"{page.url}stream/raw.mjpg", cv2.CAP_FFMPEG)
        for _ in range(3):
            read, picture = capture.read()
            assert read
            assert picture.shape == (48, 64, 3)
        capture.release()
    finally:
        stop.set()
        publisher.join()


def test_frame_of_another_size_is_shown(page, connect, result):
    client = connect(page)
    client.get("/stream/layers")
    for size in ((48, 64), (96, 32), (1, 1)):
        page.publish(result(size=size))
        words = client.layers()[0]
        assert (words["height"], words["width"]) == size


def test_nothing_is_encoded_while_nobody_looks(monkeypatch, page, ask, connect, result, wait_until):
    calls, encode = [], cv2.imencode
    monkeypatch.setattr(cv2, "imencode", lambda *args: calls.append(1) or encode(*args))
    page.publish(result(0))
    ask(page, "/status.json")
    ask(page, "/stream/raw.mjpg", "HEAD")
    assert calls == []
    client = connect(page)
    client.get("/stream/layers")
    client.layers()
    assert calls == [1]
    client.close()
    wait_until(lambda: viewers(ask, page) == 0, "the viewer is forgotten")
    page.publish(result(1))
    ask(page, "/status.json")
    assert calls == [1]


def test_frame_is_encoded_once_for_all_who_look(monkeypatch, page, connect, result):
    clients = [connect(page) for _ in range(6)]
    for client in clients[:3]:
        client.get("/stream/layers")
    for client in clients[3:]:
        client.get("/stream/raw.mjpg")
        client.take(9)
    calls, encode = [], cv2.imencode
    monkeypatch.setattr(cv2, "imencode", lambda *args: calls.append(1) or encode(*args))
    page.publish(result())
    for client in clients[:3]:
        client.layers()
    for client in clients[3:]:
        client.jpeg()
    assert calls == [1]


def test_picture_that_cannot_be_encoded_is_logged_and_passed_over(page, connect, result, caplog, wait_until):
    client = connect(page)
    client.get("/stream/layers")
    page.publish(result(0, image=np.zeros((4, 4, 7), np.uint8)))
    wait_until(lambda: "was not encoded" in caplog.text, "the failure is logged")
    page.publish(result(1))
    assert client.layers()[0]["sequence"] == 1


# Slow viewers


def test_viewer_that_was_away_gets_the_newest_frame_not_the_old_ones(page, connect, noise, ask, wait_until):
    client, other = connect(page, receive_bytes=4096), connect(page)
    client.get("/stream/layers")
    other.get("/stream/layers")
    published = 60
    for sequence in range(published):
        page.publish(noise(sequence))
        assert other.layers()[0]["number"] == sequence + 1, "a viewer that reads misses nothing"
    numbers = []
    while not numbers or numbers[-1] < published:
        numbers.append(client.layers()[0]["number"])
    assert numbers == sorted(set(numbers))
    assert len(numbers) <= 5, "what the socket held, and the newest"


def test_fifty_viewers_half_of_them_not_reading_miss_and_delay_nothing(page, connect, result, ask, wait_until):
    readers, sleepers = [connect(page) for _ in range(25)], [connect(page, receive_bytes=4096) for _ in range(25)]
    for client in (*readers, *sleepers):
        client.get("/stream/layers")
    wait_until(lambda: viewers(ask, page) == 50, "all are watching")
    published = 300
    image = np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8)
    for sequence in range(published):
        page.publish(result(sequence, image=image))
    for client in readers:
        numbers = [0]
        while numbers[-1] < published:
            numbers.append(client.layers()[0]["number"])
        assert numbers == sorted(set(numbers))
    (source,) = ask(page, "/status.json").json()["sources"]
    assert source["processed"] == published
    for client in sleepers:
        number = 0
        while number < published:
            number = client.layers()[0]["number"]


def test_viewer_that_takes_nothing_is_dropped(open_page, connect, noise, ask, wait_until):
    page = open_page(limits=Limits(send_timeout_s=0.1))
    client = connect(page, receive_bytes=4096)
    client.get("/stream/layers")
    sequence = iter(range(10**6))

    def gone():
        page.publish(noise(next(sequence)))
        return viewers(ask, page) == 0

    wait_until(gone, "the viewer is dropped")


def test_viewer_that_closes_is_forgotten_though_nothing_is_published(page, connect, ask, wait_until):
    client = connect(page)
    client.get("/stream/overlay.mjpg")
    wait_until(lambda: viewers(ask, page) == 1, "the viewer is counted")
    client.close()
    wait_until(lambda: viewers(ask, page) == 0, "the viewer is forgotten")


def test_more_than_the_limit_are_told_to_come_again(open_page, connect, ask, wait_until):
    page = open_page(limits=Limits(connections=3))
    clients = [connect(page) for _ in range(3)]
    for client in clients:
        assert client.get("/stream/layers").status == 200
    answer = ask(page, "/")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    clients[0].close()
    wait_until(lambda: ask(page, "/").status == 200, "there is room again")


def test_flood_is_cut_without_a_word(open_page, connect):
    page = open_page(limits=Limits(connections=2))
    waiting = [connect(page) for _ in range(4)]
    for client in waiting:
        client.send(b"GET")  # and never more: they hold what there is
    late = connect(page)
    with pytest.raises((EOFError, OSError)):
        late.get("/")


def test_refused_visitor_who_drips_on_does_not_keep_his_place(monkeypatch, page, connect):
    monkeypatch.setattr(server_module, "_LINGER_S", 0.1)
    client = connect(page)
    client.send(b"nonsense\r\n\r\n")

    def drip():
        for _ in range(1_000):
            client.send(b"x")
            time.sleep(0.02)

    with pytest.raises(OSError, match=r"Broken pipe|reset by peer"):
        drip()


# Leaving


def test_closed_page_leaves_no_thread_and_no_descriptor(open_page, connect, result):
    def descriptors():
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0  # noqa: PTH208, PTH112

    def threads():
        return {thread.name for thread in threading.enumerate() if thread.name.startswith("fcnedge-page")}

    before = descriptors()
    page = open_page()
    clients = [connect(page) for _ in range(10)]
    for client in clients:
        client.get("/stream/layers")
    page.publish(result())
    clients[0].layers()
    assert len(threads()) == 2
    page.close()
    page.close()
    for client in clients:
        client.rest()
        client.close()
    assert threads() == set()
    assert descriptors() == before


def test_publishing_on_a_closed_page_is_no_error(open_page, connect, result):
    page = open_page()
    connect(page).get("/stream/layers")
    page.close()
    page.publish(result())


def test_port_is_free_again_after_closing(open_page):
    first = open_page()
    address = first.url
    first.close()
    assert open_page(address).url == address


def test_ipv6_loopback_is_served(open_page, ask):
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        page = open_page("http://[::1]:0")
    except Exception as error:
        if "no address of this machine" not in str(error):
            raise
        pytest.skip("this machine has no IPv6 loopback")
    assert ask(page, "/", host=page.url.split("/")[2]).status == 200
