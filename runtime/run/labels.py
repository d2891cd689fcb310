"""A short name for each source, that a folder can bear: video0, cam.local_live, holiday."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ..local_path import local_path
from ..sources.listing import NUMBERED

_LONGEST = 80


def source_labels(sources: Sequence[str]) -> list[str]:
    """One per source, no two alike on any disk, in their order; the same for the same words, whether they open or not.

    A webcam is video0, a CSI camera csi0; a network camera its host, port and path without user, password and query; a
    file or folder its name without ending; a pattern of pictures its name, or that of its folder; demo://clip is
    demo_clip. Letters, digits, "." and "-" stay, all else becomes "_". One that comes again is NAME_2.
    """
    labels: list[str] = []
    used: set[str] = set()
    for source in sources:
        wanted = re.sub(r"[^\w.-]+", "_", _name(source)).strip("._")[:_LONGEST] or "source"
        label, count = wanted, 1
        while label.lower() in used:
            count += 1
            label = f"{wanted}_{count}"
        used.add(label.lower())
        labels.append(label)
    return labels


def _name(source: str) -> str:
    device = source.removeprefix("v4l2://")
    if device.isascii() and device.isdigit() and not Path(source).exists():
        return f"video{int(device)}"
    if re.match(r"/dev/(video\d+|v4l/)", device):
        return Path(device).name
    scheme, found, rest = source.partition("://")
    if found and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        if scheme.lower() != "file":
            return _name_of_address(source, scheme.lower(), rest)
        source = rest
    return "pipeline" if " ! " in source else _name_of_path(local_path(source))


def _name_of_address(source: str, scheme: str, rest: str) -> str:
    if scheme in ("csi", "demo"):
        return f"{scheme}{rest}" if rest.isdigit() else f"{scheme}_{rest}"
    try:
        parts = urlsplit(source)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.hostname or scheme}{port}/{parts.path}"
    except ValueError:  # an address that will not open either; nothing of it is repeated
        return scheme


def _name_of_path(path: Path) -> str:
    if any(character in path.name for character in "*?["):
        path = path.parent
    name = path.resolve().name if path.name in ("", "..") else path.name
    return NUMBERED.sub("", name if path.is_dir() else Path(name).stem)
