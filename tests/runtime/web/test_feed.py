"""A feed encodes the newest, once, while somebody looks; nothing that is published slips past it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from fcnedge.runtime.web.feed import Feed


@dataclass(frozen=True)
class Item:
    number: int


class Studio:
    """A feed with what it looks at; every encoding is written down."""

    def __init__(self, executor, fps=1000.0):
        self.item, self.encoded, self.asked, self.news = None, [], 0, asyncio.Event()
        self.feed = Feed(lambda: self.item, self.encode, news=self.news, ask=self.ask, executor=executor, fps=fps)

    def encode(self, item):
        self.encoded.append(item.number)
        return b"%d" % item.number

    def ask(self):
        self.asked += 1

    def publish(self, number):
        self.item = Item(number)
        self.news.set()
        self.news.clear()


@pytest.fixture
def play():
    """Give the function that runs a scene with a studio, in an event loop of its own."""

    def played(scene, **options):
        with ThreadPoolExecutor(1) as executor:

            async def whole():
                await asyncio.wait_for(scene(Studio(executor, **options)), 30)

            asyncio.run(whole())

    return played


def test_every_item_that_is_waited_for_is_shown_once(play):
    async def scene(studio):
        with studio.feed.viewer():
            for number in range(1, 20):
                studio.publish(number)
                picture = await studio.feed.after(number - 1)
                assert (picture.number, picture.data) == (number, b"%d" % number)
        assert studio.encoded == list(range(1, 20))

    play(scene)


def test_viewers_share_one_encoding(play):
    async def scene(studio):
        with studio.feed.viewer(), studio.feed.viewer(), studio.feed.viewer():
            assert studio.feed.viewers == 3
            studio.publish(1)
            pictures = await asyncio.gather(*(studio.feed.after(0) for _ in range(3)))
            assert pictures[0] is pictures[1] is pictures[2]
        assert studio.encoded == [1]
        assert studio.feed.viewers == 0

    play(scene)


def test_what_came_during_an_encoding_is_passed_over_but_for_the_newest(play):
    async def scene(studio):
        with studio.feed.viewer():
            studio.publish(1)
            await studio.feed.after(0)
            for number in range(2, 50):
                studio.publish(number)
            assert (await studio.feed.after(1)).number == 49
        assert studio.encoded == [1, 49]

    play(scene)


def test_item_that_comes_between_looking_and_asking_is_not_lost(play):
    async def scene(studio):
        def ask():
            studio.item = Item(1)  # published, and its wake went to nobody yet

        studio.feed._ask = ask
        with studio.feed.viewer():
            assert (await studio.feed.after(0)).number == 1

    play(scene)


def test_last_viewer_ends_the_work_and_the_next_begins_anew(play):
    async def scene(studio):
        with studio.feed.viewer():
            studio.publish(1)
            await studio.feed.after(0)
        studio.publish(2)
        await asyncio.sleep(0)
        assert studio.encoded == [1]
        with studio.feed.viewer():
            assert (await studio.feed.after(1)).number == 2
        assert studio.encoded == [1, 2]

    play(scene)


def test_failure_is_logged_once_and_the_next_item_shown(play, caplog):
    async def scene(studio):
        def encode(item):
            studio.encoded.append(item.number)
            if item.number == 1:
                raise ValueError("no picture")
            return b"2"

        studio.feed._encode = encode
        with studio.feed.viewer():
            studio.publish(1)
            while len(studio.encoded) < 3:
                await asyncio.sleep(0.01)
            studio.publish(2)
            assert (await studio.feed.after(0)).number == 2
        assert len([record for record in caplog.records if "was not encoded" in record.message]) == 1

    play(scene)
