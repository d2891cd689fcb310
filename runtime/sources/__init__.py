"""Sources of frames: pictures, folders, films, cameras and the demonstration, behind one `open_source`."""

from .frame import Frame, Source
from .input_options import InputOptions
from .opening import open_source

__all__ = ["Frame", "InputOptions", "Source", "open_source"]
