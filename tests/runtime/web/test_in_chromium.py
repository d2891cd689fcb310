"""The page in a real browser, at the size of a desktop and of a phone: what is seen, heard and reached by keyboard.

FCNEDGE_SCREENSHOTS=FOLDER keeps a screenshot of each size.
"""

import os
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from fcnedge.runtime import FakeBackend, Segmenter
from fcnedge.runtime.sources import Frame
from fcnedge.runtime.streams.result import StreamResult
from fcnedge.runtime.streams.status import SourceState, SourceStatus
from fcnedge.runtime.web import LivePage

pytestmark = pytest.mark.slow

SIZES = {"desktop": (1280, 800, False), "phone": (390, 844, True)}
SQUARE = (200, 40, 30)  # BGR: blue alone is bright, which is class 1, "blue", to FakeBackend
GROUND = (90, 100, 110)  # nothing is bright: class 0
# As in test_pictures.py, and one more for the browser's own conversion of the JPEG and one for its blending.
COLOUR_ERROR = 5


class Robot:
    """A blue square on grey that moves with each step, segmented by a real segmenter on a fake backend."""

    def __init__(self, bundle: Path, page: LivePage, browser) -> None:
        segmenter = Segmenter(bundle)
        self.segmenter = Segmenter(segmenter.bundle, FakeBackend(segmenter.bundle.manifest))
        segmenter.close()
        self.page, self.browser, self.sequence = page, browser, 0
        self.status = SourceStatus("camera://0", SourceState.LIVE, fps=30.0)
        page.statuses = lambda: [self.status]

    def step(self, *, ago_s: float = 0.0, source: str = "camera://0", wait: bool = True) -> None:
        """Publish the next frame, and wait until the browser shows it."""
        image = np.full((240, 320, 3), GROUND, np.uint8)
        left = 48 + 16 * (self.sequence % 2)
        image[72:168, left : left + 128] = SQUARE
        segmentation = self.segmenter.segment(image)
        now = time.monotonic() - ago_s
        frame = Frame(image, "frame", self.sequence, now)
        self.page.publish(StreamResult(frame, segmentation, source, self.sequence, 0, now - 0.02, now))
        self.sequence += 1
        self.status = replace(self.status, captured=self.sequence, processed=self.sequence)
        if wait:
            self.browser.until(f"document.getElementById('stage').dataset.number == '{self.sequence}'")


@pytest.fixture
def robot(write_bundle, tmp_path, chromium, connect):
    bundle = write_bundle(tmp_path / "tiny", size=(240, 320))
    segmenter = Segmenter(bundle)
    with segmenter, LivePage("http://127.0.0.1:0", segmenter.palette, segmenter.classes, "tiny · fake fp32") as page:
        yield Robot(bundle, page, chromium)
    chromium.send("Page.navigate", url="about:blank")
    chromium.console.clear()


@pytest.fixture(params=sorted(SIZES))
def open_robot(request, robot, chromium):
    """Give a robot whose page is open, with its first picture, at one of the sizes."""
    width, height, phone = SIZES[request.param]
    chromium.open(robot.page.url, width, height, phone=phone)
    robot.step()
    chromium.until("document.querySelector('#classes li:not([hidden])')")
    robot.size = request.param
    return robot


def seen(browser):
    """Pixels of the window, (H, W, 3) int BGR, and how many of them lie in a pixel of the page."""
    picture = cv2.imdecode(np.frombuffer(browser.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    return picture.astype(int), picture.shape[1] / browser.run("innerWidth")


def colour_at(browser, x, y):
    """BGR of the window where the frame's pixel (x, y) of 320x240 is shown."""
    browser.run("document.getElementById('stage').scrollIntoView({block: 'center'})")
    picture, scale = seen(browser)
    left, top, width, height = browser.run(
        "(({x, y, width, height}) => [x, y, width, height])(document.getElementById('stage').getBoundingClientRect())"
    )
    return picture[round((top + (y + 0.5) / 240 * height) * scale), round((left + (x + 0.5) / 320 * width) * scale)]


def square(browser):
    return colour_at(browser, 120, 120)  # inside of it in both of its places


def ground(browser):
    return colour_at(browser, 280, 40)


def near(colour, expected, error=COLOUR_ERROR):
    return bool(np.abs(colour - np.array(expected)).max() <= error)


def test_picture_moves_and_nothing_is_wrong(open_robot, chromium):
    first, _ = seen(chromium)
    open_robot.step()
    second, _ = seen(chromium)
    assert near(colour_at(chromium, 60, 120), GROUND), "the square has left its first place"
    assert (first != second).any(axis=2).sum() > 1000
    assert chromium.run("document.getElementById('state').textContent") == "live"
    assert chromium.run("document.getElementById('model').textContent") == "tiny · fake fp32"
    assert chromium.console == []
    folder = os.environ.get("FCNEDGE_SCREENSHOTS")
    if folder:
        Path(folder, f"live-page-{open_robot.size}.png").write_bytes(chromium.screenshot())


def test_switch_shows_overlay_mask_and_camera(open_robot, chromium):
    blue = open_robot.segmenter.palette[1, ::-1]
    overlay = 0.5 * np.array(SQUARE) + 0.5 * blue
    for mode, expected, behind in (
        ("overlay", overlay, GROUND),
        ("mask", blue, (11, 9, 8)),
        ("raw", SQUARE, GROUND),
        ("overlay", overlay, GROUND),
    ):
        chromium.click(f"document.querySelector('input[value={mode}]')")
        assert near(square(chromium), expected), mode
        assert near(ground(chromium), behind), mode
    assert chromium.console == []


def test_opacity_follows_the_keyboard(open_robot, chromium):
    blue = open_robot.segmenter.palette[1, ::-1]
    slider = "document.getElementById('opacity')"
    chromium.run(f"{slider}.focus()")
    for key, code, percent in (("End", 35, 100), ("Home", 36, 0), ("ArrowRight", 39, 1)):
        chromium.press(key, code)
        assert chromium.run(f"{slider}.value") == str(percent)
        assert chromium.run(f"{slider}.getAttribute('aria-valuetext')") == f"{percent} percent"
        assert chromium.run("document.getElementById('opacity-value').textContent") == f"{percent} %"
        part = percent / 100
        assert near(square(chromium), (1 - part) * np.array(SQUARE) + part * blue)
        assert near(ground(chromium), GROUND), "the background is not painted"


def test_switch_is_reached_by_keyboard(open_robot, chromium):
    chromium.run("document.querySelector('input[value=overlay]').focus()")
    for mode in ("mask", "raw", "overlay"):
        chromium.press("ArrowRight", 39)
        assert chromium.run("document.getElementById('stage').dataset.mode") == mode


def test_class_that_is_switched_off_is_not_painted(open_robot, chromium):
    box = "document.querySelectorAll('#classes input')[1]"
    assert chromium.run(f"{box}.checked")
    chromium.click(box)
    assert near(square(chromium), SQUARE)
    chromium.click(box)
    assert not near(square(chromium), SQUARE)


def test_classes_in_view_are_listed_with_their_share(open_robot, chromium):
    chromium.until("document.querySelectorAll('#classes li:not([hidden])').length == 2")
    names = (
        "[...document.querySelectorAll('#classes li:not([hidden])')].map(each => each.innerText.split('\\n').join(' '))"
    )
    board = open_robot.page._board
    share = round(100 * np.mean(board.newest(*board.sources()).result.segmentation.mask == 1))
    assert chromium.run(names) == [f"black {100 - share} %", f"blue {share} %"]
    chromium.click("document.getElementById('more')")
    assert len(chromium.run(names)) == 8


def test_pixel_that_is_pointed_at_is_named(open_robot, chromium):
    left, top, width, height = chromium.run(
        "(({x, y, width, height}) => [x, y, width, height])(document.getElementById('stage').getBoundingClientRect())"
    )
    for x, y, name in ((120, 120, "blue"), (280, 40, "black")):
        chromium.send("Input.dispatchMouseEvent", type="mouseMoved", x=left + x / 320 * width, y=top + y / 240 * height)
        assert chromium.run("document.getElementById('pointed').textContent") == name


def test_pause_frees_the_robot_and_goes_on(open_robot, chromium, ask, wait_until):
    def viewers():
        return ask(open_robot.page, "/status.json").json()["viewers"]

    wait_until(lambda: viewers() == 1, "the page watches")
    chromium.click("document.getElementById('pause')")
    wait_until(lambda: viewers() == 0, "the page has stopped")
    chromium.click("document.getElementById('pause')")
    open_robot.step()


def test_lost_source_is_told_with_its_reason(open_robot, chromium):
    reason = "The camera closed the connection; trying again in 4 s."
    open_robot.step(ago_s=12.0)
    open_robot.status = replace(open_robot.status, state=SourceState.LOST, reason=reason)
    notice = "document.getElementById('notice')"
    chromium.until(f"!{notice}.hidden && {notice}.innerText.includes('{reason}')")
    assert chromium.run(f"/^No picture since (1[2-9]|[2-9][0-9]) s$/.test({notice}.children[0].textContent)")
    assert chromium.run("document.getElementById('spoken').textContent") == f"Source lost: {reason}"
    assert chromium.run("document.title").startswith("No picture")
    open_robot.status = replace(open_robot.status, state=SourceState.LIVE, reason=None)
    open_robot.step()
    chromium.until(f"{notice}.hidden")
    assert chromium.console == []


def test_page_says_that_the_robot_is_gone_and_finds_it_again(robot, chromium):
    chromium.open(robot.page.url, 390, 844, phone=True)
    robot.step()
    robot.page.close()
    notice = "document.getElementById('notice')"
    chromium.until(f"!{notice}.hidden && {notice}.innerText.startsWith('No answer since')")
    with LivePage(robot.page.url, robot.segmenter.palette, robot.segmenter.classes, "tiny, again") as page:
        robot.page, robot.sequence = page, 0
        page.statuses = lambda: [robot.status]
        robot.step(wait=False)
        robot.step()
        chromium.until(f"{notice}.hidden")
        assert chromium.run("document.getElementById('model').textContent") == "tiny, again"


def test_second_source_is_chosen_and_shows_its_own_pictures(open_robot, chromium):
    other = SourceStatus("camera://1", SourceState.CONNECTING)
    open_robot.page.statuses = lambda: [open_robot.status, other]
    chromium.until("document.querySelectorAll('#sources label').length == 2")
    chromium.click("document.querySelectorAll('#sources label')[1]")
    assert chromium.run("document.getElementById('notice').innerText").startswith("Connecting")
    assert not near(square(chromium), 0.5 * np.array(SQUARE) + 0.5 * open_robot.segmenter.palette[1, ::-1])
    open_robot.sequence = 0
    other = replace(other, state=SourceState.LIVE)
    open_robot.step(source="camera://1")
    chromium.until("document.getElementById('notice').hidden")
    assert near(square(chromium), 0.5 * np.array(SQUARE) + 0.5 * open_robot.segmenter.palette[1, ::-1])
    assert chromium.console == []


def test_frame_of_another_size_fills_the_stage(open_robot, chromium, result):
    open_robot.page.publish(result(size=(200, 100)))
    chromium.until("document.getElementById('camera').height == 200")
    width, height = chromium.run(
        "(({width, height}) => [width, height])(document.getElementById('stage').getBoundingClientRect())"
    )
    assert width / height == pytest.approx(0.5, abs=0.01)
    assert chromium.console == []


def test_every_control_has_a_name_and_the_slider_a_value(open_robot, chromium):
    nodes = chromium.send("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in nodes if node["role"]["value"] in ("slider", "radio", "checkbox", "button", "image")]
    roles = {node["role"]["value"] for node in controls}
    assert roles == {"slider", "radio", "checkbox", "button", "image"}
    assert [node for node in controls if not node["name"].get("value")] == []
    (slider,) = (node for node in controls if node["role"]["value"] == "slider")
    assert slider["name"]["value"] == "Opacity"


@pytest.mark.parametrize(
    ("width", "dark"), [(320, False), (390, True), (860, False), (861, True), (1280, True), (2560, False)]
)
def test_no_width_scrolls_sideways(robot, chromium, width, dark):
    other = SourceStatus("rtsp://a-camera-with-a-long-name.example/stream/of/the/yard?channel=1", SourceState.STALLED)
    robot.page.statuses = lambda: [robot.status, other]
    chromium.open(robot.page.url, width, 800, phone=width < 700, dark=dark)
    robot.step()
    chromium.until("document.querySelectorAll('#sources label').length == 2")
    assert chromium.run("document.documentElement.scrollWidth") <= width
    backgrounds = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, backgrounds[4:-1].split(","))) < 384) is dark
    assert chromium.console == []


def test_browser_without_decompression_gets_the_overlay(robot, chromium, ask, wait_until):
    old = "delete window.DecompressionStream; delete AbortSignal.timeout;"
    script = chromium.send("Page.addScriptToEvaluateOnNewDocument", source=old)["identifier"]
    try:
        robot.step(wait=False)
        chromium.open(robot.page.url, 390, 844, phone=True)
        wait_until(lambda: ask(robot.page, "/status.json").json()["viewers"] == 1, "the browser watches")

        def shown():
            robot.step(wait=False)  # a browser shows a part when the next one begins
            return chromium.run("document.querySelector('#stage > img').naturalWidth") == 320

        wait_until(shown, "the browser shows the stream")
        chromium.until("document.getElementById('state').textContent == 'live'")
        assert near(square(chromium), 0.5 * np.array(SQUARE) + 0.5 * robot.segmenter.palette[1, ::-1])
        assert chromium.console == []
    finally:
        chromium.send("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


def test_token_in_the_address_opens_the_page_and_leaves_it(write_bundle, tmp_path, chromium, result):
    palette = np.zeros((3, 3), np.uint8)
    with LivePage("http://127.0.0.1:0", palette, ("a", "b", "c"), "tiny", token="correct-horse.1") as page:
        page.publish(result())
        chromium.open(f"{page.url}?token=correct-horse.1", 1280, 800)
        chromium.until("document.getElementById('stage') && document.getElementById('stage').dataset.number")
        assert chromium.run("location.href") == page.url
        assert chromium.run("document.cookie") == "", "no script reads the cookie"
        assert chromium.console == []
        chromium.send("Page.navigate", url="about:blank")
