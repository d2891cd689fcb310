"""Where results go: nowhere, a folder, a picture, a video file, a window, the network or the live page."""

from .display import DisplaySink
from .folder import FolderSink
from .network import NetworkSink
from .null import NullSink
from .opening import open_sink
from .page import PageSink
from .picture import PICTURE_SUFFIXES, PictureSink
from .sink import Sink, SinkClosed
from .video import VIDEO_CODECS, VideoSink

__all__ = [
    "PICTURE_SUFFIXES",
    "VIDEO_CODECS",
    "DisplaySink",
    "FolderSink",
    "NetworkSink",
    "NullSink",
    "PageSink",
    "PictureSink",
    "Sink",
    "SinkClosed",
    "VideoSink",
    "open_sink",
]
