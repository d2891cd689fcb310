"""A path as a user writes it."""

from __future__ import annotations

import os
from pathlib import Path


def local_path(text: str) -> Path:
    """`~/film.mp4` → the file in the user's home; a name whose `~` means nobody is a name like any other."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises for a user that is not there
