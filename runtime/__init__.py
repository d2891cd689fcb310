"""Run a bundle on camera frames: the only room of fcnedge that a device needs.

    from fcnedge.runtime import Segmenter

    with Segmenter("fcn8s-lite0-voc") as segment:
        mask = segment(frame)  # (H, W, 3) uint8 BGR -> (H, W) uint8 class ids

Needs NumPy; OpenCV and the backend's library are imported when first used.
"""

from .backends import Backend, FakeBackend, open_backend
from .bundle import Bundle
from .errors import BackendError, BundleError, FcnEdgeError, SourceError, UserError
from .head import BilinearHead, HeadGeometry
from .manifest import Manifest
from .overlay import blend, colorize, legend
from .palette import VOC_CLASSES, voc_palette
from .segmenter import Segmentation, Segmenter
from .sinks import open_sink
from .sources import Frame, InputOptions, Source, open_source
from .streams import Pipeline, SourceState, SourceStatus, Stream, StreamResult

__all__ = [
    "VOC_CLASSES",
    "Backend",
    "BackendError",
    "BilinearHead",
    "Bundle",
    "BundleError",
    "FakeBackend",
    "FcnEdgeError",
    "Frame",
    "HeadGeometry",
    "InputOptions",
    "Manifest",
    "Pipeline",
    "Segmentation",
    "Segmenter",
    "Source",
    "SourceError",
    "SourceState",
    "SourceStatus",
    "Stream",
    "StreamResult",
    "UserError",
    "blend",
    "colorize",
    "legend",
    "open_backend",
    "open_sink",
    "open_source",
    "voc_palette",
]
