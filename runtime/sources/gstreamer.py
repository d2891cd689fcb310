"""GStreamer pipelines as text, for OpenCV's appsink: nothing here opens anything.

A live pipeline ends in `appsink drop=true max-buffers=1 sync=false`: the newest frame waits, older ones are dropped,
and none is held back to its presentation time. Without these OpenCV's queue grows to seconds of delay (opencv/opencv
#13281, JetsonHacksNano/CSI-Camera #45).
"""

from __future__ import annotations

import re
from fractions import Fraction
from urllib.parse import SplitResult, unquote

from fcnedge.runtime.errors import SourceError

from .input_options import FLIPS, InputOptions

LIVE_SINK = "appsink drop=true max-buffers=1 sync=false"
FILE_SINK = "appsink drop=false max-buffers=4 sync=false"
_TO_BGR = "videoconvert ! video/x-raw, format=(string)BGR"
_FROM_NVMM = "video/x-raw, format=(string)BGRx"  # what nvvidconv can give the CPU that videoconvert turns into BGR

_RTP_PARTS = {
    "h264": "rtph264depay ! h264parse",
    "h265": "rtph265depay ! h265parse",
    "vp8": "rtpvp8depay",
    "vp9": "rtpvp9depay",
    "mpeg2": "rtpmpvdepay ! mpegvideoparse",
    "mpeg4": "rtpmp4vdepay ! mpeg4videoparse",
    "mjpeg": "rtpjpegdepay",
}


def csi_pipeline(sensor: int, options: InputOptions) -> str:
    """nvarguscamerasrc → nvvidconv (which flips) → BGR; 1280x720 at 30 frames per second unless asked otherwise."""
    size = (options.width or 1280, options.height or 720)
    return " ! ".join(
        (
            f"nvarguscamerasrc sensor-id={sensor}",
            f"video/x-raw(memory:NVMM), {_caps(size, options.rate or 30)}, format=(string)NV12",
            f"nvvidconv flip-method={FLIPS.index(options.flip)}",
            _FROM_NVMM,
            _TO_BGR,
            LIVE_SINK,
        )
    )


def v4l2_pipeline(device: str, options: InputOptions) -> str:
    """v4l2src → jpegdec where MJPEG is asked for → BGR, in the size and rate asked for."""
    if options.codec not in (None, "raw", "mjpeg"):
        raise SourceError(f"a webcam sends mjpeg or raw pictures here, not {options.codec}; ask for one of these")
    size = (options.width, options.height) if options.width and options.height else None
    wishes = _caps(size, options.rate)
    kind = "image/jpeg" if options.codec == "mjpeg" else "video/x-raw"
    parts = [f"v4l2src device={quoted(device)}"]
    if wishes or options.codec:
        parts.append(f"{kind}, {wishes}" if wishes else kind)
    if options.codec == "mjpeg":
        parts.append("jpegdec")
    return " ! ".join((*parts, _TO_BGR, LIVE_SINK))


def rtsp_pipeline(address: SplitResult, options: InputOptions, *, jetson: bool) -> str:
    """rtspsrc over TCP → decoder → BGR; on a Jetson the decoder is its hardware's, H.264 unless told otherwise.

    User and password go into properties of their own, percent-decoded: not every rtspsrc decodes them in an address.
    """
    if options.codec == "raw":
        raise SourceError("an RTSP camera sends a compressed film; name its codec (h264, h265, mjpeg …), not raw")
    host = f"[{address.hostname}]" if ":" in (address.hostname or "") else address.hostname or ""
    place = address._replace(netloc=host + (f":{address.port}" if address.port else "")).geturl()
    microseconds = round(options.timeout_s * 1e6)
    source = [
        f"rtspsrc location={quoted(place)} protocols=tcp latency={options.latency_ms}",
        f"timeout={microseconds} tcp-timeout={microseconds}",
    ]
    for name, value in (("user-id", address.username), ("user-pw", address.password)):
        if value is not None:
            source.append(f"{name}={quoted(unquote(value))}")
    if jetson:
        decoder = [_RTP_PARTS[options.codec or "h264"], _jetson_decoder(options.codec), "nvvidconv", _FROM_NVMM]
    else:
        decoder = [_RTP_PARTS[options.codec]] if options.codec else []
        decoder.append("decodebin")
    return " ! ".join((" ".join(source), *decoder, _TO_BGR, LIVE_SINK))


def user_pipeline(text: str) -> str:
    """A pipeline as typed, with an appsink that suits it.

    One without an appsink gets conversion to BGR and the sink. An appsink that says nothing about drop, max-buffers or
    sync gets these, for a live pipeline or for a file; what it says stands.
    """
    text = text.strip().rstrip("!").rstrip()
    sink = LIVE_SINK if is_live_pipeline(text) else FILE_SINK
    if not re.search(r"(?:^|!|\s)appsink\b", text):
        return f"{text} ! {_TO_BGR} ! {sink}"
    head, _, said = text.rpartition("appsink")
    missing = [wish for wish in sink.split()[1:] if not re.search(rf"\b{wish.partition('=')[0]}\s*=", said)]
    return f"{head}appsink{said} {' '.join(missing)}".rstrip()


def is_live_pipeline(text: str) -> bool:
    """Whether frames come in real time: unless the pipeline begins in files, or plays a file:// address."""
    return not re.search(r"(?:^|!|\s)(?:multi)?filesrc\b|(?:^|!|\s)splitmuxsrc\b|uri\s*=\s*\"?file:", text)


def quoted(value: str) -> str:
    """The value of a property, quoted so that no space, ! or quote in it ends it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _caps(size: tuple[int, int] | None, rate: float | None) -> str:
    parts = [f"width=(int){size[0]}, height=(int){size[1]}"] if size else []
    if rate:
        fraction = Fraction(rate).limit_denominator(1001)
        parts.append(f"framerate=(fraction){fraction.numerator}/{fraction.denominator}")
    return ", ".join(parts)


def _jetson_decoder(codec: str | None) -> str:
    return "nvjpegdec" if codec == "mjpeg" else "nvv4l2decoder"
