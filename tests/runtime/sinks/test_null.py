"""null:// writes nothing."""

import pytest

from fcnedge.runtime.sinks import open_sink


@pytest.mark.parametrize("uri", [None, "null://"])
def test_null_sink_counts_and_wants_no_picture(uri, tmp_path, result, files, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_sink(uri) as sink:
        assert sink.shows == ()
        sink.take(result()[0], None)
        sink.take(result()[0], None)
    assert sink.written == 2
    assert files(tmp_path) == []
