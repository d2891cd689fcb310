"""The live page as a sink, asked over HTTP."""

import json
import urllib.request

import pytest

from fcnedge.runtime import Bundle, FakeBackend, Segmenter, UserError
from fcnedge.runtime.look import Look
from fcnedge.runtime.sinks import PageSink


@pytest.fixture
def segmenter(tiny_bundle):
    bundle = Bundle.load(tiny_bundle)
    with Segmenter(bundle, FakeBackend(bundle.manifest)) as segmenter:
        yield segmenter


def status(page):
    with urllib.request.urlopen(
        f"{page.url}status.json" if page.url.endswith("/") else f"{page.url}/status.json"
    ) as told:
        return json.load(told)


def test_page_shows_results_looks_and_model_and_wants_no_picture(segmenter, result):
    look = Look(segmenter.palette, segmenter.classes, alpha=0.25, ignore=frozenset({0, 3}))
    with PageSink("http://127.0.0.1:0", segmenter, look) as page:
        assert page.shows == ()
        page.take(result()[0], None)
        told = status(page)
        assert page.written == 1
    assert told["alpha"] == 0.25
    assert [number for number, each in enumerate(told["classes"]) if not each["painted"]] == [0, 3]
    assert [source["processed"] for source in told["sources"]] == [1]
    assert told["model"] == "tiny · fake fp32"


def test_page_tells_of_a_backend_that_another_has_replaced(segmenter, result, monkeypatch):
    look = Look(segmenter.palette, segmenter.classes)
    with PageSink("http://127.0.0.1:0", segmenter, look) as page:
        page.take(result()[0], None)
        monkeypatch.setattr(segmenter.backend, "name", "spare")
        page.take(result()[0], None)
        assert status(page)["model"] == "tiny · spare fp32"


def test_port_is_free_again_when_it_is_closed(segmenter):
    look = Look(segmenter.palette, segmenter.classes)
    with PageSink("http://127.0.0.1:0", segmenter, look) as page:
        with pytest.raises(UserError, match="is in use"):
            PageSink(page.url, segmenter, look)
        url = page.url
    PageSink(url, segmenter, look).close()
