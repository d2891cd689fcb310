"""One pass over calibration pictures: how far each activation of a bundle's graph reaches.

A picture at a time, batch 1, through the fp32 graph; what is kept is a histogram per activation, so that memory does
not grow with the number of pictures. The pass can be interrupted and continued.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path

from fcnedge.runtime import Bundle
from fcnedge.runtime.command import Progress
from fcnedge.runtime.errors import SourceError, UserError
from fcnedge.runtime.manifest import Manifest
from fcnedge.runtime.preprocessing import fit_frame
from fcnedge.runtime.sources.picture_file import read_picture

from .activations import ActivationGraph
from .collected import Collected, Identity
from .histogram import Histogram
from .pictures import PictureList
from .ranges import Ranges, printable_name
from .thresholds import DEFAULT_PERCENTILE

MAX_SKIPPED_SHARE = 0.01
"""More unreadable pictures than this share of the list, and something is wrong with the list."""

_SAVE_EVERY = 16
_log = logging.getLogger(__name__)


def collect(
    bundle: Bundle,
    pictures: PictureList,
    *,
    method: str = "percentile",
    percentile: float = DEFAULT_PERCENTILE,
    state: Path | None = None,
    threads: int | None = None,
) -> Ranges:
    """Ranges of all float activations over `pictures`, clipped by `method`; see collect_histograms for the rest."""
    return collect_histograms(bundle, pictures, state=state, threads=threads).ranges(method, percentile)


def collect_histograms(
    bundle: Bundle,
    pictures: PictureList,
    *,
    state: Path | None = None,
    restart: bool = False,
    threads: int | None = None,
) -> Collected:
    """Histograms of all float activations of the bundle's fp32 graph over `pictures`.

    state: .npz file that keeps what was collected, every few pictures and on Ctrl-C; if it is there, the pass goes on
    where it ended. restart: ignore one that is there. threads: CPU threads, None for one per core.
    Raises UserError when more than 1% of the pictures cannot be read, when an activation holds NaN or infinity, when
    `state` belongs to other pictures, another preprocessing or another graph, and what ActivationGraph raises.
    """
    graph = ActivationGraph(bundle, threads)
    identity = Identity(pictures.sha256, preprocessing_sha256(bundle.manifest), graph.fingerprint)
    collected = Collected(identity, 0, (), {})
    if state is not None and state.exists() and not restart:
        collected = Collected.load(state, identity)
        _log.info("%d pictures are in %s already.", collected.visited, state)
    progress = Progress()
    try:
        while collected.visited < len(pictures.paths):
            progress("collect ranges", collected.visited, len(pictures.paths))
            # one assignment: an interruption falls between two pictures, never inside one
            collected = _with_next_picture(collected, graph, bundle.manifest, pictures)
            if state is not None and collected.visited % _SAVE_EVERY == 0:
                collected.save(state)
    except KeyboardInterrupt:
        progress.close()
        _keep(collected, state, restart)
        raise
    finally:
        progress.close()
    if not collected.histograms:
        raise UserError(f"{pictures.origin} holds no picture that can be read; choose others.")
    if state is not None:
        collected.save(state)
    return collected


def preprocessing_sha256(manifest: Manifest) -> str:
    """Hash of everything that decides what pixels the first layer sees: size, fit, channel order, mean, scale."""
    facts = {"input": asdict(manifest.input), "preprocessing": asdict(manifest.preprocessing)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _with_next_picture(
    collected: Collected, graph: ActivationGraph, manifest: Manifest, pictures: PictureList
) -> Collected:
    name, path = pictures.names[collected.visited], pictures.paths[collected.visited]
    try:
        frame = read_picture(path)
    except SourceError as error:
        skipped = (*collected.skipped, printable_name(name))
        _log.warning("skipped: %s", error)
        _check_skipped(skipped, pictures)
        return Collected(collected.identity, collected.visited + 1, skipped, collected.histograms)
    image, _ = fit_frame(frame, (manifest.input.height, manifest.input.width), manifest.input.fit)
    histograms = {}
    for tensor, values in graph.run(image[None]):
        try:
            histogram = Histogram.of(values)
        except ValueError as error:
            raise UserError(
                f"the activation {tensor!r} holds {error} on {path}; check the model's weights with fcn-run."
            ) from error
        before = collected.histograms.get(tensor)
        histograms[tensor] = histogram if before is None else before + histogram
    return Collected(collected.identity, collected.visited + 1, collected.skipped, histograms)


def _check_skipped(skipped: tuple[str, ...], pictures: PictureList) -> None:
    if len(skipped) > MAX_SKIPPED_SHARE * len(pictures.paths):
        raise UserError(
            f"{len(skipped)} of {len(pictures.paths)} pictures cannot be read ({', '.join(skipped[:10])}), more than "
            f"{MAX_SKIPPED_SHARE:.0%}; mend {pictures.origin} or take other pictures."
        )


def _keep(collected: Collected, state: Path | None, restart: bool) -> None:
    if state is None or not collected.visited:
        return
    collected.save(state)
    command = "the same command without --restart" if restart else "the same command"
    _log.warning("%d pictures are kept in %s; %s goes on from there.", collected.visited, state, command)
