"""null://: nothing is written."""

from __future__ import annotations

import numpy as np

from ..streams.result import StreamResult
from .sink import Sink


class NullSink(Sink):
    """Writes nothing; counts."""

    def take(self, result: StreamResult, picture: np.ndarray | None) -> None:
        """Count the result."""
        self.written += 1
