"""Where fcnedge keeps what it can make again: in the user's cache folder, never in somebody's data."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UserError


def user_cache(kind: str) -> Path:
    """The folder for `kind`, "engines" say, below $XDG_CACHE_HOME or ~/.cache; it need not exist.

    A relative $XDG_CACHE_HOME counts as none, as the XDG Base Directory Specification has it. Raises UserError for a
    user without a home.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # noqa: PTH117 - what is asked is a text
        try:
            base = Path.home() / ".cache"
        except RuntimeError as error:
            raise UserError(
                "this user has no home folder to keep a cache in; set XDG_CACHE_HOME to a folder."
            ) from error
    return Path(base) / "fcnedge" / kind


def make_private(folder: Path) -> None:
    """Make `folder` and what is missing above it, for this user alone: engines and kernels in it are run.

    What is there already stays as it is. Raises OSError.
    """
    for each in (*reversed(folder.parents), folder):
        each.mkdir(mode=0o700, exist_ok=True)
