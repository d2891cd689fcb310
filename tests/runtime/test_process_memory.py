"""What this process holds in memory, and held at most."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fcnedge.runtime.process_memory import peak_bytes, peak_rss_bytes, resident_bytes

GROWN = """
import numpy as np
from fcnedge.runtime.process_memory import peak_bytes, resident_bytes
before = resident_bytes()
held = np.ones(64 << 20, np.uint8)
print(before, resident_bytes(), peak_bytes())
"""


@pytest.mark.skipif(resident_bytes() is None, reason="no /proc/self/status on this system")
def test_memory_grows_by_what_is_taken():
    """In a process of its own: an older one may hold freed memory that it takes again."""
    done = subprocess.run([sys.executable, "-c", GROWN], capture_output=True, text=True, check=True)
    before, after, peak = map(int, done.stdout.split())
    assert after - before > 0.9 * (64 << 20)
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
