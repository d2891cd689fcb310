"""What is known of one recording once it is masked, and the manifest: one such file per recording, written last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..command import jsonable
from .recordings import Recording
from .storage import Storage

FOLDER = "statistics"
MERGED = "statistics.jsonl"


@dataclass(frozen=True)
class FileStatistics:
    """One line of statistics.jsonl.

    file: its URI; size and modified_ns: of it, when it was read; masks: name of the PNG, or of the folder with one per
    frame, None where there is no frame; frames: masks written; classes: mean share of the frames' pixels by class name,
    0..1; seconds: from opening it to its last mask; model: `model_name` of what masked it; warning: what went wrong
    without ending it; error: why it was passed over, or ended early.
    """

    file: str
    size: int
    modified_ns: int | None
    masks: str | None
    frames: int
    classes: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    model: str = ""
    warning: str | None = None
    error: str | None = None

    def is_of(self, recording: Recording, model: str) -> bool:
        """Whether this file, unchanged, was masked by this model, and without an error."""
        now = recording.uri, recording.size, recording.modified_ns, model
        return self.error is None and (self.file, self.size, self.modified_ns, self.model) == now

    def line(self) -> str:
        """As JSON on one line."""
        return json.dumps(jsonable(self), ensure_ascii=False)

    def write(self, out: Storage, key: str) -> None:
        """Into the manifest, whole or not at all. Raises UserError."""
        data = (self.line() + "\n").encode("utf-8", "backslashreplace")
        out.write_atomically(f"{FOLDER}/{key}.json", data)


def read_statistics(out: Storage, key: str) -> FileStatistics | None:
    """The manifest's entry; None where there is none, or one that says nothing. Raises UserError."""
    name = f"{FOLDER}/{key}.json"
    if not out.exists(name):
        return None
    return parse_statistics(out.read(name))


def parse_statistics(data: bytes | str) -> FileStatistics | None:
    """One line of JSON as an entry; None for anything else."""
    try:
        return FileStatistics(**json.loads(data))
    except (ValueError, TypeError):
        return None


def merge(out: Storage, entries: Mapping[str, FileStatistics]) -> None:
    """Write `entries`, by their keys and in their order, as statistics.jsonl. Raises UserError."""
    lines = [entries[key].line() for key in sorted(entries)]
    out.write_atomically(MERGED, ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))
