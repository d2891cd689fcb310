"""What every place that results go to has in common."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from ..streams.result import StreamResult

if TYPE_CHECKING:
    from typing_extensions import Self  # typing.Self needs Python 3.11


class SinkClosed(Exception):  # noqa: N818 - no error: somebody has seen enough
    """A person has closed the output, as by closing its window; the run ends as after Ctrl-C."""


class Sink(ABC):
    """Takes one result after another; a context manager. Raises UserError when it cannot write.

    uri: as the user gave it, without a password. written: number of results taken. shows: what its pictures are to
    show, side by side, as `Look.draw` takes it: "overlay", "mask"; empty where it wants no picture.
    """

    shows: tuple[str, ...] = ()

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.written = 0

    @abstractmethod
    def take(self, result: StreamResult, picture: np.ndarray | None) -> None:
        """Write a result. Raises UserError when it cannot be written, SinkClosed when a person has closed the output.

        picture: (H, W * len(shows), 3) uint8 BGR, what `shows` asks for; None when it asks for nothing.
        """

    def close(self) -> None:  # noqa: B027 - most sinks finish each file as they go
        """Finish the output; more than once does no harm. Raises UserError when it turns out incomplete."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An error already under way is the one to show, not what closing makes of its remains.
        with contextlib.suppress(UserError) if error is not None else contextlib.nullcontext():
            self.close()


def drawn(picture: np.ndarray | None) -> np.ndarray:
    """The picture of a sink whose `shows` asks for one. Raises TypeError without: whoever draws must ask the sink."""
    if picture is None:
        raise TypeError("this sink takes what its `shows` names, drawn with Look.draw; got no picture")
    return picture
