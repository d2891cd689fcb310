"""What may be asked of a source: size, rate, codec, flip, loop and latency, in segnet's words."""

from __future__ import annotations

from dataclasses import dataclass

from fcnedge.runtime.errors import UserError

CODECS = ("h264", "h265", "vp8", "vp9", "mpeg2", "mpeg4", "mjpeg", "raw")
FLIPS = (
    "none",
    "counterclockwise",
    "rotate-180",
    "clockwise",
    "horizontal",
    "upper-right-diagonal",
    "vertical",
    "upper-left-diagonal",
)
"""In the order of nvvidconv's flip-method, 0 to 7 (NVIDIA, Jetson Linux Developer Guide, Accelerated GStreamer)."""


@dataclass(frozen=True)
class InputOptions:
    """Wishes for a source; None is the source's own. Raises UserError for values that no source could have.

    width, height: pixels, and rate: frames per second, to ask a camera (csi://, v4l2) for. codec: of `CODECS`, what a
    webcam shall send (mjpeg, raw) or which decoder GStreamer takes for RTSP; FFmpeg sees for itself. flip: of `FLIPS`,
    done to every frame. loop: how often pictures or films are played again, -1 for ever. latency_ms: how long GStreamer
    waits for late RTSP packets. timeout_s: seconds after which a network camera that is silent counts as lost.
    """

    width: int | None = None
    height: int | None = None
    rate: float | None = None
    codec: str | None = None
    flip: str = "none"
    loop: int = 0
    latency_ms: int = 10
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("height", self.height)):
            if value is not None and not 1 <= value <= 32768:
                raise UserError(f"the input's {name} is {value}; it must be from 1 to 32768 pixels.")
        if (self.width is None) != (self.height is None):
            raise UserError("the input's width and height go together; give both or neither.")
        if self.rate is not None and not 0 < self.rate <= 1000:
            raise UserError(f"the input's rate is {self.rate}; it must be above 0 and at most 1000 frames per second.")
        for name, value, known in (("codec", self.codec, CODECS), ("flip", self.flip, FLIPS)):
            if value is not None and value not in known:
                raise UserError(f"the input's {name} is {value!r}; it must be one of {', '.join(known)}.")
        if self.loop < -1:
            raise UserError(f"the input's loop is {self.loop}; it must be 0 or more, or -1 for ever.")
        if not 0 <= self.latency_ms <= 60_000:
            raise UserError(f"the input's latency is {self.latency_ms}; it must be from 0 to 60000 milliseconds.")
        if not 0 < self.timeout_s <= 3600:
            raise UserError(f"the input's timeout is {self.timeout_s}; it must be above 0 and at most 3600 seconds.")

    @property
    def camera_wishes(self) -> bool:
        """Whether a size or rate is asked for, which only a camera can be."""
        return self.width is not None or self.rate is not None
