"""Between ROS's image messages and NumPy, in place of cv_bridge: that is C++ built for one Python and one NumPy.

The fields are those of sensor_msgs/Image and sensor_msgs/CompressedImage; no ROS is needed to read or write them.
https://docs.ros.org/en/rolling/p/sensor_msgs/msg/Image.html
"""

from __future__ import annotations

import array
from typing import Any, Protocol, TypeVar

import numpy as np

from ..errors import SourceError
from ..opencv import load_cv2
from ..picture_ends import missing_end

_CHANNELS = {"bgr8": 3, "rgb8": 3, "mono8": 1, "bgra8": 4, "rgba8": 4}
_TO_BGR = {
    "rgb8": "COLOR_RGB2BGR",
    "mono8": "COLOR_GRAY2BGR",
    "bgra8": "COLOR_BGRA2BGR",
    "rgba8": "COLOR_RGBA2BGR",
}


class ImageMessage(Protocol):
    """The fields of sensor_msgs/Image. data: `array.array` of bytes, row after row, each `step` bytes long."""

    header: Any
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedImageMessage(Protocol):
    """The fields of sensor_msgs/CompressedImage. data: `array.array` of bytes, a picture file."""

    header: Any
    format: str
    data: Any


_Message = TypeVar("_Message", bound=ImageMessage)


def frame_from_image(message: ImageMessage) -> np.ndarray:
    """The picture of a sensor_msgs/Image as (H, W, 3) uint8 BGR; bytes at the end of its rows are left out.

    It may share the message's memory. Alpha is dropped; byte order means nothing in 8 bits.
    Raises SourceError for an encoding other than bgr8, rgb8, mono8, bgra8 and rgba8, no pixels, a step that is shorter
    than a row, or data that is not height × step bytes.
    """
    channels = _CHANNELS.get(message.encoding)
    if channels is None:
        raise SourceError(
            f"the image has encoding {message.encoding!r}; fcnedge takes {', '.join(_CHANNELS)}: convert it first, "
            "with the package image_proc for a Bayer or YUV camera"
        )
    width, height, step = message.width, message.height, message.step
    if not width or not height:
        raise SourceError(f"the image has no pixels: its width is {width} and its height {height}; look at the camera")
    if step < width * channels:
        raise SourceError(
            f"the image has a step of {step} bytes, but a row of {width} pixels in {message.encoding} needs "
            f"{width * channels}; correct the node that publishes it"
        )
    data = np.frombuffer(message.data, np.uint8)
    if data.size != height * step:
        raise SourceError(
            f"the image holds {data.size} bytes, but {height} rows with a step of {step} are {height * step}; correct "
            "the node that publishes it"
        )
    pixels = data.reshape(height, step)[:, : width * channels].reshape(height, width, channels)
    code = _TO_BGR.get(message.encoding)
    if code is None:
        return np.ascontiguousarray(pixels)
    cv2 = load_cv2()
    return cv2.cvtColor(np.ascontiguousarray(pixels), getattr(cv2, code))


def frame_from_compressed(message: CompressedImageMessage) -> np.ndarray:
    """The picture of a sensor_msgs/CompressedImage (JPEG, PNG …) as (H, W, 3) uint8 BGR.

    Not turned by what Exif says: image_transport does not do so, and other nodes' pixels must be where ours are.
    Raises SourceError for depth images, and for what is empty, truncated or cannot be decoded.
    """
    if "compresseddepth" in message.format.replace("_", "").lower():
        raise SourceError(f"the compressed image holds depth ({message.format!r}); subscribe to the colour images")
    data = np.frombuffer(message.data, np.uint8)
    if not data.size:
        raise SourceError("the compressed image is empty: it has 0 bytes; look at the camera")
    if missing_end(data.tobytes()):
        raise SourceError(
            f"the compressed image ({message.format!r}, {data.size} bytes) is truncated; look at the camera"
        )
    cv2 = load_cv2()
    try:
        frame = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # more than 2^30 pixels, or a header that makes no sense
        frame = None
    if frame is None:
        raise SourceError(
            f"the compressed image ({message.format!r}, {data.size} bytes) is damaged, or no format that OpenCV reads; "
            "publish JPEG or PNG"
        )
    return frame


def write_picture(message: _Message, header: Any, picture: np.ndarray) -> _Message:
    """Fill a sensor_msgs/Image with (H, W) uint8 as mono8, or (H, W, 3) uint8 BGR as bgr8, and return it.

    header: that of the image it belongs to: its stamp and frame_id are carried over.
    """
    message.header = header
    message.height, message.width = picture.shape[:2]
    message.encoding = "mono8" if picture.ndim == 2 else "bgr8"
    message.is_bigendian = 0
    message.step = picture.nbytes // message.height
    # An array.array is taken as it is; Humble's rclpy checks the bytes of anything else one by one.
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(picture).data.cast("B"))
    message.data = data
    return message
