"""Films and pictures of one colour each, as the tests of fcn-run have them, and a batch's output read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ..run.conftest import command, film, pictures

__all__ = ["command", "film", "pictures", "read_batch"]

Batch = dict[str, tuple[dict[str, Any], dict[str, set[int]]]]


@pytest.fixture
def read_batch() -> Callable[[Path], Batch]:
    """Give the function that reads a batch's folder: name of a recording → (its statistics, {mask: classes in it}).

    Each recording has one entry in statistics/ and one line in statistics.jsonl, and nothing else lies there.
    """

    def read(out: Path) -> Batch:
        lines = [json.loads(line) for line in (out / "statistics.jsonl").read_text().splitlines()]
        entries = [json.loads(path.read_text()) for path in (out / "statistics").iterdir()]
        assert sorted(lines, key=lambda entry: entry["file"]) == sorted(entries, key=lambda entry: entry["file"])
        found, seen = {}, set()
        for entry in entries:
            masks = {}
            if entry["masks"] is not None:
                place = out / entry["masks"]
                seen.add(place)
                for path in sorted(place.iterdir()) if place.is_dir() else [place]:
                    with Image.open(path) as mask:
                        masks[path.name] = set(np.unique(np.asarray(mask)).tolist())
            found[Path(entry["file"]).name] = (entry, masks)
        assert len(found) == len(entries)
        assert not (out / "masks").exists() or set((out / "masks").iterdir()) == seen
        assert {path.name for path in out.iterdir()} <= {"masks", "statistics", "statistics.jsonl"}
        return found

    return read
