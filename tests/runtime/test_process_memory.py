"""What this process holds in memory, and held at most."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fcnedge.runtime.process_memory import peak_bytes, peak_rss_bytes, resident_bytes


def test_memory_grows_by_what_is_taken():
    before = resident_bytes()
    if before is None:
        pytest.skip("no /proc/self/status on this system")
    held = np.ones(64 << 20, np.uint8)
    after, peak = resident_bytes(), peak_bytes()
    assert after is not None
    assert peak is not None
    assert after - before > 0.9 * held.nbytes
    assert peak >= after - (1 << 20)  # the kernel brings the two up to date at different times


def test_no_proc_gives_none(tmp_path):
    assert peak_bytes(tmp_path) is resident_bytes(tmp_path) is None


def test_peak_is_not_that_of_the_parent():
    """ru_maxrss of a child starts at what its parent held: 256 MB here."""
    held = np.ones(256 << 20, np.uint8)
    code = "from fcnedge.runtime.process_memory import peak_rss_bytes; print(peak_rss_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < held.nbytes < peak_rss_bytes()


def test_children_that_have_ended_count_on_request():
    before = peak_rss_bytes()
    code = f"held = bytearray(b'1') * {before + (64 << 20)}"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert peak_rss_bytes() < before + (64 << 20) <= peak_rss_bytes(children=True)
