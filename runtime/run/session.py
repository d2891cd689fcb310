"""One run of fcn-run: sources through the model to outputs, each on threads of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from time import perf_counter_ns

from ..backends import FrameBackend
from ..class_files import read_colors, read_labels
from ..command import Progress
from ..cores import usable_cores
from ..errors import UserError
from ..look import Look, parse_ignored
from ..segmenter import Segmenter
from ..sinks import Sink, SinkClosed
from ..streams import Pipeline, StreamResult
from .decoder_words import open_named
from .last_word import refuse_source_as_sink
from .options import RunOptions, check_numbers
from .outputs import Outputs, open_outputs
from .result import RunResult
from .tally import Tally


def run(options: RunOptions, say: Callable[[str], object]) -> RunResult:
    """Segment what the sources give and write it to the sink. say: shows a line while the run goes on.

    A live source has no end of its own: Ctrl-C or SIGTERM is its end, and no error. So is the end of any run that
    somebody ends at the output, by closing its window.
    Raises UserError in one sentence. Of several sources one that fails is logged; the others go on.
    """
    check_numbers(options)
    if options.sink is not None:
        refuse_source_as_sink(options.sink, len(options.sources))
    with (
        Segmenter(
            options.model,
            options.backend,
            options.precision,
            options.threads,
            options.fallback,
            options.filter_mode,
        ) as segmenter,
        contextlib.closing(Progress()) as progress,
    ):
        look = _look(options, segmenter)
        with _pipeline(options, segmenter) as pipeline:
            sources = {place: source for place, source in enumerate(pipeline.sources) if source is not None}
            with open_outputs(options, sources, segmenter, look) as outputs:
                tally = Tally(len(options.sources), options.frames)
                writing = _Writing(pipeline, tally, look, progress)
                for place, sink in outputs.sinks.items():
                    pipeline.add(writing.into(sink), place)
                shows = next((sink.shows for sink in outputs.sinks.values()), ())
                if shows and _takes_all_cores(segmenter, options.threads):
                    pipeline.draw(lambda result: look.draw(result.frame.image, result.segmentation.mask, shows))
                if outputs.page is not None:
                    outputs.page.show_statuses(lambda: pipeline.statuses)
                    say(f"live page: {outputs.page.url}")
                seconds = _timed(pipeline, options, outputs, tally)
                outputs.close()
        return _result(options, segmenter, look, pipeline, outputs, tally, seconds)


def _look(options: RunOptions, segmenter: Segmenter) -> Look:
    count = len(segmenter.classes)
    classes = segmenter.classes if options.labels is None else read_labels(options.labels, count)
    return Look(
        palette=segmenter.palette if options.colors is None else read_colors(options.colors, count),
        classes=classes,
        alpha=options.alpha,
        ignore=frozenset({0}) if options.ignore_class is None else parse_ignored(options.ignore_class, classes),
        legend=not options.no_legend,
    )


def _pipeline(options: RunOptions, segmenter: Segmenter) -> Pipeline:
    return Pipeline(
        options.sources,
        segmenter,
        stall_timeout_s=options.stall_timeout,
        options=options.input,
        opener=open_named,
    )


def _timed(pipeline: Pipeline, options: RunOptions, outputs: Outputs, tally: Tally) -> float:
    """Run to the end, whoever makes it; seconds."""
    live = any(source is not None and source.live for source in pipeline.sources)
    ends = (SinkClosed, KeyboardInterrupt) if live else (SinkClosed,)
    started = perf_counter_ns()
    with contextlib.suppress(*ends), _saying_what_is_written(outputs, tally):
        # A camera's results may be replaced before they are written, a film's never: no more are made than wanted.
        pipeline.run(None if live else options.frames)
    return (perf_counter_ns() - started) / 1e9


def _takes_all_cores(segmenter: Segmenter, threads: int | None) -> bool:
    """Whether the network leaves no core for whoever draws beside it; on a GPU it leaves them all."""
    return not isinstance(segmenter.backend, FrameBackend) and (threads is None or threads >= usable_cores())


class _Writing:
    """Writes results, on the pipeline's output threads, and draws those that are not drawn yet."""

    def __init__(self, pipeline: Pipeline, tally: Tally, look: Look, progress: Progress) -> None:
        self._pipeline, self._tally, self._look, self._progress = pipeline, tally, look, progress
        lengths = [source.length for source in pipeline.sources if source is not None]
        self._total = None if None in lengths else sum(length for length in lengths if length is not None)
        self._showing = threading.Lock()

    def into(self, sink: Sink) -> Callable[[StreamResult], None]:
        """The consumer that writes into `sink`."""

        def write(result: StreamResult) -> None:
            if self._tally.claim():
                self._write(result, sink)

        write.__qualname__ = f"the output {sink.uri}"  # what the pipeline calls it
        return write

    def _write(self, result: StreamResult, sink: Sink) -> None:
        picture, drawn_ms = result.picture, result.drawn_ms
        if sink.shows and picture is None:
            started = perf_counter_ns()
            picture = self._look.draw(result.frame.image, result.segmentation.mask, sink.shows)
            drawn_ms = (perf_counter_ns() - started) / 1e6
        sink.take(result, picture)
        self._tally.add(result, drawn_ms)
        with self._showing:
            words = f"{result.frame.name}: {result.segmentation.total_ms + drawn_ms:.1f} ms"
            self._progress(words, self._tally.frames, self._total)
        if self._tally.full:
            self._pipeline.close()


@contextlib.contextmanager
def _saying_what_is_written(outputs: Outputs, tally: Tally) -> Iterator[None]:
    """Add to the UserError that ends the run how many frames are written, and where."""
    try:
        yield
    except UserError as error:
        if not tally.frames or not outputs.kept:
            raise
        frames = "1 frame before it was" if tally.frames == 1 else f"{tally.frames:,} frames before it were"
        raise type(error)(f"{str(error).removesuffix('.')}; {frames} written to {outputs.uri}") from error


def _result(
    options: RunOptions,
    segmenter: Segmenter,
    look: Look,
    pipeline: Pipeline,
    outputs: Outputs,
    tally: Tally,
    seconds: float,
) -> RunResult:
    places = zip(pipeline.sources, pipeline.statuses, strict=True)
    return RunResult(
        sources=[tally.source(place, source, status) for place, (source, status) in enumerate(places)],
        sink=outputs.uri,
        model=segmenter.bundle.manifest.name,
        backend=segmenter.backend.name,
        precision=segmenter.backend.precision,
        frames=tally.frames,
        seconds=seconds,
        frames_per_second=tally.frames / seconds if seconds else 0.0,
        stages=tally.stages(),
        classes=tally.classes(look.classes),
    )
