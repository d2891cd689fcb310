"""The command line's words about a foreign model file, as numbers."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from fcnedge.runtime.errors import UserError

from .origin import ImportFlags


class _Words(Protocol):
    @property
    def padding(self) -> str | None: ...
    @property
    def mean(self) -> str | None: ...
    @property
    def scale(self) -> str | None: ...
    @property
    def channel_order(self) -> str | None: ...
    @property
    def rgb(self) -> bool: ...
    @property
    def layout(self) -> str | None: ...
    @property
    def output_name(self) -> str | None: ...


def read_flags(words: _Words) -> ImportFlags:
    """Numbers out of `--mean`, `--scale` and their sisters. Raises UserError for what is no number."""
    if words.rgb and words.channel_order == "bgr":
        raise UserError("--rgb and --channel-order bgr contradict each other; keep one.")
    mean = None if words.mean is None else _three("--mean", words.mean)
    scale = None if words.scale is None else _three("--scale", words.scale)
    if scale is not None and 0 in scale:
        raise UserError(f"--scale is {words.scale}; a channel that is multiplied by 0 says nothing.")
    return ImportFlags(
        padding=words.padding,
        mean=mean,
        scale=scale,
        channel_order="rgb" if words.rgb else words.channel_order,
        layout=words.layout,
        output_name=words.output_name,
    )


def _three(flag: str, text: str) -> tuple[float, float, float]:
    """`S` or `R,G,B` → three numbers."""
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 3) or not np.isfinite(values).all():
        raise UserError(f"{flag} is {text!r}; it takes one number, or three with commas between them: R,G,B.")
    red, green, blue = values * 3 if len(values) == 1 else values
    return red, green, blue
