"""Pipelines looked at by GStreamer's own parser before OpenCV plays them.

OpenCV takes whatever GStreamer can make of a text: after a misspelt first element or property (4.6 does so) it waits
for the rest of the pipeline to begin, for good, in a call that nothing ends. GStreamer itself refuses such a text at
once, and says what is wrong. Nothing is started by it, and no camera or file is opened.
https://gstreamer.freedesktop.org/documentation/gstreamer/gstparse.html
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

from fcnedge.runtime.errors import SourceError

from .address import hide_password

INSTALL_PLUGINS = "install the GStreamer plugins that are missing, gstreamer1.0-plugins-good most often"

_LIBRARY = "libgstreamer-1.0.so.0"
_FATAL_ERRORS = 1  # GST_PARSE_FLAG_FATAL_ERRORS: no pipeline without what could not be made


class _Error(ctypes.Structure):
    """A GError."""

    _fields_ = (("domain", ctypes.c_uint32), ("code", ctypes.c_int), ("message", ctypes.c_char_p))


def check_pipeline(text: str, shown: str, advice: str) -> None:
    """Raise SourceError, with GStreamer's reason, for a pipeline that it does not take.

    shown: what the user calls it, without a password; advice: what to do, the end of the sentence.
    """
    wrong = why_no_pipeline(text)
    if wrong:
        raise SourceError(f"GStreamer cannot run {shown}: {hide_password(wrong)}; {advice}")


def why_no_pipeline(text: str) -> str | None:
    """What GStreamer finds wrong with a pipeline's text, such as 'no element "videotestsrcx"'; None when nothing.

    None, too, where OpenCV has not loaded GStreamer as a shared library of its own name: then OpenCV's word stands.
    """
    gstreamer = _loaded()
    if gstreamer is None:
        return None
    error = ctypes.POINTER(_Error)()
    pipeline = gstreamer.gst_parse_launch_full(text.encode(), None, _FATAL_ERRORS, ctypes.byref(error))
    if pipeline:
        gstreamer.gst_object_unref(pipeline)
    if not error:
        return None
    message = error.contents.message.decode(errors="replace")
    gstreamer.g_error_free(error)
    return message


@cache
def _loaded() -> Any:
    """The GStreamer that OpenCV has loaded, None without one: another copy would know other elements."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    try:
        library = ctypes.CDLL(_LIBRARY, mode=os.RTLD_NOLOAD)
    except OSError:
        return None
    library.gst_parse_launch_full.restype = ctypes.c_void_p
    library.gst_parse_launch_full.argtypes = (
        ctypes.c_char_p,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.POINTER(ctypes.POINTER(_Error)),
    )
    library.gst_object_unref.argtypes = (ctypes.c_void_p,)
    library.g_error_free.argtypes = (ctypes.POINTER(_Error),)
    library.gst_init_check(None, None, None)  # as OpenCV does before its first pipeline; more than once does no harm
    return library
