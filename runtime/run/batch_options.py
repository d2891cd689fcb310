"""From fcn-run's words to a batch on Ray: what goes along, and what does not."""

from __future__ import annotations

import dataclasses
import re
from pathlib import PurePosixPath

from ..batch import BatchOptions
from ..errors import UserError
from ..sinks import PICTURE_SUFFIXES
from ..sources.address import hide_password
from .options import RunOptions, check_numbers

_ALONG = frozenset({"sources", "sink", "model", "backend", "precision", "threads", "filter_mode", "ray", "json"})
_NO_FOLDER = re.compile(r"(null|display|rtp|rtsp|https?)://", re.IGNORECASE)


def batch_options(options: RunOptions) -> BatchOptions:
    """What `--ray` is asked to do. Raises UserError for an output or an option that does not go with it."""
    check_numbers(options)
    for field in dataclasses.fields(options):
        if field.name not in _ALONG and getattr(options, field.name) != field.default:
            raise UserError(
                f"--{field.name.replace('_', '-')} does not go with --ray, which writes masks; leave it out."
            )
    out = options.sink
    if out is None or _NO_FOLDER.match(out) or PurePosixPath(out).suffix.lower() in (*PICTURE_SUFFIXES, ".mp4", ".avi"):
        named = "nothing is named" if out is None else f"{hide_password(out)} is none"
        raise UserError(f"--ray writes into a folder, or a URI such as s3://bucket/masks, and {named}; put it last.")
    return BatchOptions(
        sources=options.sources,
        out=out,
        model=options.model,
        ray=options.ray or "local",
        backend=options.backend,
        precision=options.precision,
        filter_mode=options.filter_mode,
        threads=options.threads,
    )
