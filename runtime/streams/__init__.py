"""Cameras and films as streams of results: capture, inference and output on threads of their own."""

from .output import OutputStatus
from .pipeline import Pipeline
from .result import StreamResult
from .status import SourceState, SourceStatus
from .stream import Stream

__all__ = ["OutputStatus", "Pipeline", "SourceState", "SourceStatus", "Stream", "StreamResult"]
