"""Sources of frames: pictures, folders, video files, webcams and the demonstration, behind one `open_source`."""

from .frame import Frame, Source
from .opening import open_source

__all__ = ["Frame", "Source", "open_source"]
