"""GStreamer's command lines for output: raw pictures on standard input, H.264 over the network."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from urllib.parse import SplitResult, unquote

from ..errors import UserError
from ..sources.gstreamer import quoted

_LAUNCH = "gst-launch-1.0"
_TRIAL_S = 20.0
_BITS_PER_PIXEL = 0.2

# Fastest first. Each takes raw video and gives H.264 at {bits} or {kilobits} a second, a key frame every {rate} frames.
_ENCODERS = {
    "nvv4l2h264enc": "video/x-raw,format=BGRx ! nvvidconv ! video/x-raw(memory:NVMM),format=NV12 ! nvv4l2h264enc "
    "bitrate={bits} iframeinterval={rate} idrinterval={rate} insert-sps-pps=true maxperf-enable=true",
    "x264enc": "video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=veryfast bitrate={kilobits} "
    "key-int-max={rate}",
    "openh264enc": "video/x-raw,format=I420 ! openh264enc bitrate={bits} gop-size={rate} complexity=low",
}


def h264_encoder(what: str) -> str:
    """The name of the best encoder that works here. Raises UserError, `what` needing it, when there is none."""
    if shutil.which(_LAUNCH) is None:
        raise UserError(
            f"{what} needs GStreamer's {_LAUNCH}, which is not installed: apt-get install gstreamer1.0-tools "
            "gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-rtsp"
        )
    for name in _ENCODERS:
        if _works(name):
            return name
    raise UserError(
        f"{what} needs an H.264 encoder of GStreamer's, and {', '.join(_ENCODERS)} do not work here: "
        "apt-get install gstreamer1.0-plugins-ugly gstreamer1.0-plugins-bad"
    )


def launch_command(size: tuple[int, int], fps: float, encoder: str, output: Sequence[str]) -> list[str]:
    """The program that encodes what it reads, BGR pictures of `size` (width and height, both even), and sends it.

    fps: pictures per second; each counts as that much later than the one before. output: of `stream_output`.
    """
    rate = Fraction(fps).limit_denominator(1001)
    source = f"fdsrc fd=0 blocksize={size[0] * size[1] * 3} ! rawvideoparse format=bgr width={size[0]} height={size[1]}"
    source += f" framerate={rate.numerator}/{rate.denominator}"
    coded = f"{source} ! videoconvert ! {_encoding(encoder, size, fps)} ! h264parse"
    return [_LAUNCH, "-q", *coded.split(), "!", *output]


def stream_output(address: SplitResult) -> list[str]:
    """The end of the pipeline for rtp://HOST:PORT or rtsp://HOST:PORT/PATH; user and password percent-decoded."""
    if address.scheme == "rtp":
        payload = ["rtph264pay", "config-interval=1", "pt=96", "!", "udpsink", "sync=false"]
        return [*payload, f"host={address.hostname}", f"port={address.port}"]
    host = f"[{address.hostname}]" if ":" in (address.hostname or "") else address.hostname or ""
    place = address._replace(netloc=host + (f":{address.port}" if address.port else "")).geturl()
    output = ["rtspclientsink", "protocols=tcp", "latency=0", f"location={quoted(place)}"]
    for name, value in (("user-id", address.username), ("user-pw", address.password)):
        if value is not None:
            output.append(f"{name}={quoted(unquote(value))}")
    return output


@cache
def _works(encoder: str) -> bool:
    """Whether it encodes a picture: on some boards (Orin Nano) it is installed, but there is no such hardware."""
    trial = f"videotestsrc num-buffers=2 ! videoconvert ! {_encoding(encoder, (320, 240), 25)} ! fakesink"
    try:
        ran = subprocess.run([_LAUNCH, "-q", *trial.split()], capture_output=True, timeout=_TRIAL_S, check=False)
    except (subprocess.TimeoutExpired, OSError):
        return False
    return ran.returncode == 0


def _encoding(encoder: str, size: tuple[int, int], fps: float) -> str:
    bits = max(500_000, round(size[0] * size[1] * fps * _BITS_PER_PIXEL))
    return _ENCODERS[encoder].format(bits=bits, kilobits=bits // 1000, rate=max(1, round(fps)))
