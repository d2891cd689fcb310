"""What fcn-run says at the end of a run."""

from __future__ import annotations

from collections.abc import Iterator

from ..command import table
from .result import LiveStats, RunResult, SourceResult


def report_lines(result: RunResult) -> Iterator[str]:
    """The report, line by line: times of the stages, cameras, sources where there are several, classes, and the sum."""
    rows = [(name, times.p50_ms, times.p90_ms, times.max_ms) for name, times in result.stages.items()]
    yield table(rows, ("stage", "p50 ms", "p90 ms", "max ms"))
    several = len(result.sources) > 1
    for source in result.sources:
        if several:
            yield f"source   {source.uri}: {_counted(source.frames, 'frame')}{_failed(source)}"
        if source.live is not None:
            yield f"camera   {_live(source.live)}"
    if result.frames:
        seen = ", ".join(f"{name} {100 * share:.1f}%" for name, share in _by_share(result.classes))
        yield f"classes  {seen}"
        yield (
            f"rate     {result.frames_per_second:.1f} frames per second by the clock, in {result.seconds:.1f} s; "
            "reading, drawing and writing go on beside the network"
        )
    yield _sum(result)


def _sum(result: RunResult) -> str:
    if not result.frames:
        return "no frames"
    return (
        f"{_counted(result.frames, 'frame')} with {result.model} ({result.backend} {result.precision}), "
        f"{result.stages['total'].p50_ms:.1f} ms per frame{_where(result.sink)}"
    )


def _where(sink: str) -> str:
    scheme = sink.partition("://")[0].lower() if "://" in sink else "file"
    ways = {"null": "", "display": ", shown on the screen", "http": f", shown at {sink}"}
    ways |= dict.fromkeys(("rtp", "rtsp"), f", sent to {sink}")
    return ways.get(scheme, f", written to {sink}")


def _live(live: LiveStats) -> str:
    times = live.age
    age = "" if times is None else f", {times.p50_ms:.1f} ms old (p90 {times.p90_ms:.1f}, max {times.max_ms:.1f})"
    again = f", connected {live.connections} times" if live.connections > 1 else ""
    return f"{_counted(live.captured, 'frame')}, {live.dropped:,} dropped{age}{again}"


def _failed(source: SourceResult) -> str:
    return f" ({source.warning})" if source.warning else ""


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _by_share(classes: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(classes.items(), key=lambda item: -item[1])
