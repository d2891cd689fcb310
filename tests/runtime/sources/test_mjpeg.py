"""An MJPEG camera written here, on loopback, with the manners and faults of real ones."""

import http.client
import http.server
import io
import itertools
import threading

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.runtime import SourceError
from fcnedge.runtime.sources import InputOptions, open_source
from fcnedge.runtime.sources.mjpeg import MOST_DAMAGED, read_parts


def jpeg(size, value):
    return cv2.imencode(".jpg", np.full((*size, 3), value, np.uint8))[1].tobytes()


def part(data, boundary="b", length=True):
    header = f"Content-Length: {len(data)}\r\n" if length else ""
    return f"--{boundary}\r\nContent-Type: image/jpeg\r\n{header}\r\n".encode() + data + b"\r\n"


class Camera:
    """Answers GET with `body`, then holds the connection when `hold` says so. requests: their header lines."""

    def __init__(self):
        self.body, self.status, self.kind = b"", 200, "multipart/x-mixed-replace; boundary=b"
        self.hold = False
        self.let_go = threading.Event()
        self.requests = []
        camera = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                camera.requests.append((self.path, self.headers))
                self.send_response(camera.status)
                self.send_header("Content-Type", camera.kind)
                self.end_headers()
                self.wfile.write(camera.body)
                if camera.hold:
                    camera.let_go.wait(60)

            def log_message(self, format, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def url(self, login="", path="/video"):
        return f"http://{login}127.0.0.1:{self.server.server_port}{path}"

    def close(self):
        self.let_go.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def camera():
    camera = Camera()
    yield camera
    camera.close()


def until_lost(source):
    """The frames of one connection: a camera has no end of its own."""
    frames = []
    with pytest.raises(SourceError, match=r"ended after \d+ pictures"):
        frames.extend(source)  # keeps what came before the error
    return frames


@pytest.mark.parametrize("length", [True, False])
def test_pictures_come_whole_in_order_and_at_their_own_sizes(camera, length):
    pictures = [((20, 30), 10), ((20, 30), 90), ((48, 64), 250), ((9, 5), 40)]
    camera.body = b"".join(part(jpeg(*picture), length=length) for picture in pictures) + b"--b--\r\n"
    source = open_source(camera.url())
    assert (source.live, source.is_video) == (True, True)
    assert [frame.index for frame in until_lost(source)] == [0, 1, 2, 3]
    frames = until_lost(source)  # again: connected anew, counted on
    assert [(frame.image.shape[:2], round(float(frame.image.mean()))) for frame in frames] == pictures
    assert [frame.index for frame in frames] == [4, 5, 6, 7]
    assert len(camera.requests) == 2


def test_damaged_picture_is_passed_over(camera):
    monstrous = bytearray(jpeg((8, 8), 7))
    size = monstrous.index(b"\xff\xc0") + 5  # of the frame header: height and width, two bytes each
    monstrous[size : size + 4] = b"\xff\xff\xff\xff"
    camera.body = part(jpeg((8, 8), 1)) + part(b"no picture") + part(bytes(monstrous)) + part(jpeg((8, 8), 200))
    frames = until_lost(open_source(camera.url()))
    assert [round(float(frame.image.mean())) for frame in frames] == [1, 200]


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_picture_that_lacks_its_end_is_passed_over_and_said_once(camera, caplog, length, share):
    noise = cv2.imencode(".jpg", np.random.default_rng(4).integers(0, 256, (64, 64, 3), np.uint8))[1].tobytes()
    half = part(noise[: int(len(noise) * share)], length=length)
    camera.body = half + part(jpeg((8, 8), 1), length=length) + half + half + part(jpeg((8, 8), 200), length=length)
    camera.body += b"--b--\r\n"
    source = open_source(camera.url())
    assert [round(float(frame.image.mean())) for frame in until_lost(source)] == [1, 200]
    assert [record.message for record in caplog.records] == [
        f"{source.uri} sent a picture that is damaged or lacks its end; it is passed over"
    ]


def test_camera_that_sends_nothing_whole_is_lost_with_that_reason(camera):
    half = part(jpeg((8, 8), 1)[:-9])
    camera.body = half * (MOST_DAMAGED - 1) + part(jpeg((8, 8), 90)) + half * MOST_DAMAGED
    frames = iter(open_source(camera.url()))
    assert round(float(next(frames).image.mean())) == 90
    with pytest.raises(SourceError, match=rf"sends damaged pictures, {MOST_DAMAGED} in a row; look at the camera"):
        next(frames)


def test_login_and_query_are_sent_and_not_shown(camera):
    camera.body = part(jpeg((8, 8), 1))
    source = open_source(camera.url("me:p%40ss@", "/cgi?a=1&token=t0ken"))
    next(iter(source))
    path, headers = camera.requests[0]
    assert path == "/cgi?a=1&token=t0ken"
    assert headers["Authorization"] == "Basic bWU6cEBzcw=="  # me:p@ss
    assert "p%40ss" not in repr(source)
    assert "t0ken" not in source.uri


def test_letters_that_are_not_ascii_are_sent_as_utf8_in_percents(camera):
    camera.body = part(jpeg((8, 8), 1))
    next(iter(open_source(camera.url(path="/vidéo%20?q=ü#top"))))
    assert camera.requests[0][0] == "/vid%C3%A9o%20?q=%C3%BC"


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
def test_name_that_no_host_can_have_is_not_known(host):
    with pytest.raises(SourceError, match=f"cannot be opened: the name {host} is not known"):
        next(iter(open_source(f"http://{host}/video")))


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, "text/html", "answers 401 Unauthorized; check user and password"),
        (404, "text/html", "answers 404 Not Found; check the path"),
        (503, "text/html", "answers 503"),
        (302, "text/html", "answers 302"),
        (200, "text/html", "gives text/html, not MJPEG"),
        (200, "video/mp4", "gives video/mp4, not MJPEG"),
        (200, "multipart/x-mixed-replace", "not MJPEG"),
    ],
)
def test_answer_that_is_no_stream_is_named(camera, status, kind, words):
    camera.status, camera.kind = status, kind
    with pytest.raises(SourceError, match=words) as caught:
        next(iter(open_source(camera.url("me:secret@"))))
    assert "secret" not in str(caught.value)


def test_silence_is_given_up_after_the_timeout(camera):
    camera.body, camera.hold = part(jpeg((8, 8), 1)), True
    source = open_source(camera.url(), InputOptions(timeout_s=0.3))
    frames = iter(source)
    next(frames)
    with pytest.raises(SourceError, match=r"sent nothing for 0\.3 seconds"):
        next(frames)


def test_close_from_another_thread_ends_a_read_under_way(camera):
    camera.body, camera.hold = part(jpeg((8, 8), 1)), True
    source = open_source(camera.url(), InputOptions(timeout_s=3000))
    frames, rest = iter(source), []
    next(frames)
    reading = threading.Thread(target=lambda: rest.extend(frames))
    reading.start()
    source.close()
    reading.join(60)
    assert not reading.is_alive()
    assert rest == []
    assert list(source) == []  # for good


def test_nothing_listening_is_named():
    camera = Camera()
    address = camera.url("me:secret@")
    camera.close()
    source = open_source(address)
    assert not source.is_there()
    with pytest.raises(SourceError, match=r"cannot be opened: nothing listens on port") as caught:
        next(iter(source))
    assert "secret" not in str(caught.value)


def test_part_that_is_too_long_is_refused_before_it_is_read(camera):
    camera.body = b"--b\r\nContent-Length: 99999999999\r\n\r\n"
    with pytest.raises(SourceError, match="99999999999 bytes is no picture"):
        next(iter(open_source(camera.url())))


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=60), st.booleans()), max_size=6), st.binary(max_size=9))
def test_parts_are_what_was_sent(parts, preamble):
    parts = [(data.replace(b"\n", b"-"), length) for data, length in parts]  # a boundary in the data would end it
    preamble = preamble.replace(b"\n", b"-") + b"\r\n"
    parts = [(data, length or data.endswith(b"\r")) for data, length in parts]
    sent = preamble + b"".join(part(data, length=length) for data, length in parts) + b"--b--\r\n"
    if preamble.startswith(b"--b"):
        return
    assert list(read_parts(io.BytesIO(sent), b"b")) == [data for data, _ in parts]


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_garbage_gives_parts_or_an_end(garbage, seed):
    body = part(b"x") + garbage + part(b"y")
    cut = seed % (len(body) + 1)
    try:
        parts = list(itertools.islice(read_parts(io.BytesIO(body[:cut]), b"b"), 1000))
    except http.client.HTTPException:
        return
    assert len(parts) <= len(body)
