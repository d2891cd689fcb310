"""The ROS 2 node: subscribes to images, publishes a mask for the newest one, with stamp and frame_id carried over.

Subscriptions are best effort, as cameras publish, and Fast DDS's shared memory holds 512 KB: of larger images most were
lost in Jazzy and in Kilted. Where the camera offers reliable delivery, all of them arrive with
`-p qos_overrides./camera/image_raw.subscription.reliability:=reliable`, the topic being the one that `~/image` is
remapped to. In Kilted all arrive too when the environment of camera and node has FASTDDS_BUILTIN_TRANSPORTS=LARGE_DATA.
https://fast-dds.docs.eprosima.com/en/latest/fastdds/env_vars/env_vars.html
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import BackendError, UserError
from ..overlay import colorize
from ..segmenter import Segmenter
from .health import Health
from .library import Ros
from .messages import frame_from_compressed, frame_from_image, write_picture
from .newest import NewestWorker
from .parameters import CHANGEABLE, NodeParameters, changed_look, first_look

_REPORT_PERIOD_S = 1.0
_THROTTLE_S = 5.0

_log = logging.getLogger(__name__)


class MaskNode:
    """Masks for ROS images; held by an rclpy node, so that any node may hold one.

    Subscribes to `~/image` (sensor_msgs/Image: bgr8, rgb8, mono8, bgra8, rgba8) and `~/image/compressed`
    (sensor_msgs/CompressedImage), best effort. The newest image only: what the middleware hands over while the model is
    busy is dropped and counted; what it lost on the way is not known here. Publishes sensor_msgs/Image, each with its
    image's header: `~/mask` (mono8: class ids), `~/color` (bgr8: their colours) and `~/overlay` (bgr8), the last two
    while somebody subscribes; and `~/diagnostics` (diagnostic_msgs/DiagnosticArray) once a second. These are offered
    reliable, which best-effort subscribers take too.

    Threads: rclpy's callbacks only hand images over; a thread of its own segments and publishes. An image that cannot
    be used is said in one sentence, and the next goes on; with backend "auto" the CPU takes over from a GPU that fails.

    ros: what `load_ros` gives. node: the rclpy node; its parameters are declared here. failed: called by the thread
    with an exception that is a bug; no image is segmented after it.
    Raises UserError for wrong parameters, BundleError and BackendError as `Segmenter` does.
    """

    def __init__(self, ros: Ros, node: Any, failed: Callable[[BaseException], None]):
        self._ros, self._node = ros, node
        parameters = NodeParameters.read(self._declared())
        fallback = "cpu" if parameters.backend == "auto" else None
        self._segmenter = Segmenter(
            parameters.model,
            parameters.backend,
            parameters.precision,
            fallback=fallback,
            filter_mode=parameters.filter_mode,
        )
        self._health, self._worker = Health(), NewestWorker(self._segment, failed)
        try:
            self._look = first_look(parameters, self._segmenter.palette, self._segmenter.classes)
            self._open_topics()
        except RuntimeError as error:  # rclpy's word for a wrong qos_overrides parameter
            self.close()
            raise UserError(f"ROS does not open the node's topics: {error}") from error
        except UserError:
            self.close()
            raise
        backend = self._segmenter.backend
        node.get_logger().info(
            f"{self._segmenter.bundle.manifest.name} runs on {backend.name} in {backend.precision}; waiting for images "
            f"on {node.resolve_topic_name('~/image')} and {node.resolve_topic_name('~/image/compressed')}"
        )

    def close(self) -> None:
        """End the thread and release the backend; the rclpy node is its owner's. More than once does no harm."""
        if self._worker.close():
            self._segmenter.close()
        else:
            _log.warning("the backend has not answered for 10 s, so it is not released")

    def _declared(self) -> dict[str, Any]:
        """The parameters' values as ROS has them, after their declaration.

        Typed by what was written, so that `alpha:=1` is not refused as an integer: `NodeParameters` checks them.
        """
        descriptor = self._ros.rcl_interfaces.ParameterDescriptor
        values = {}
        for field in dataclasses.fields(NodeParameters):
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            about = descriptor(
                description=field.metadata["help"], dynamic_typing=True, read_only=field.name not in CHANGEABLE
            )
            values[field.name] = self._node.declare_parameter(field.name, default, about).value
        return values

    def _open_topics(self) -> None:
        # Reliable and no deeper than one: whoever comes late gets the next mask, and nobody an old one.
        self._mask, self._color, self._overlay = (self._publisher(name) for name in ("mask", "color", "overlay"))
        messages, node = self._ros.sensor_msgs, self._node
        self._diagnostics = node.create_publisher(self._ros.diagnostic_msgs.DiagnosticArray, "~/diagnostics", 1)
        node.add_on_set_parameters_callback(self._change_look)
        node.create_timer(_REPORT_PERIOD_S, self._report)
        self._subscribe("~/image", messages.Image, frame_from_image)
        self._subscribe("~/image/compressed", messages.CompressedImage, frame_from_compressed)

    def _publisher(self, name: str) -> Any:
        image = self._ros.sensor_msgs.Image
        return self._node.create_publisher(image, f"~/{name}", 1, qos_overriding_options=self._overrides())

    def _overrides(self) -> Any:
        """What makes ROS's own parameters `qos_overrides.…` count."""
        return self._ros.qos_overriding_options.QoSOverridingOptions.with_default_policies()

    def _subscribe(self, topic: str, kind: Any, read: Callable[[Any], np.ndarray]) -> None:
        qos = self._ros.qos
        newest = qos.QoSProfile(
            history=qos.HistoryPolicy.KEEP_LAST, depth=1, reliability=qos.ReliabilityPolicy.BEST_EFFORT
        )
        take: Callable[[Any], None] = lambda message: self._worker.put((message, read))  # noqa: E731
        self._node.create_subscription(kind, topic, take, newest, qos_overriding_options=self._overrides())

    def _segment(self, item: tuple[Any, Callable[[Any], np.ndarray]]) -> None:
        """One image's way, on the worker's thread."""
        message, read = item
        try:
            frame = read(message)
            segmentation = self._segmenter.segment(frame)
        except BackendError as error:
            self._health.failed(str(error))
            self._node.get_logger().error(str(error), throttle_duration_sec=_THROTTLE_S)
            return
        except UserError as error:
            self._health.refused(str(error))
            self._node.get_logger().warning(str(error), throttle_duration_sec=_THROTTLE_S)
            return
        try:
            self._publish(message.header, frame, segmentation.mask)
            self._health.segmented(segmentation.total_ms, self._age_ms(message.header.stamp))
        except Exception:
            if self._node.context.ok():  # else it was shut down in mid-frame, by Ctrl-C most likely
                raise

    def _publish(self, header: Any, frame: np.ndarray, mask: np.ndarray) -> None:
        image = self._ros.sensor_msgs.Image
        self._mask.publish(write_picture(image(), header, mask))
        if self._color.get_subscription_count():
            self._color.publish(write_picture(image(), header, colorize(mask, self._segmenter.palette)))
        if self._overlay.get_subscription_count():
            self._overlay.publish(write_picture(image(), header, self._look.draw(frame, mask)))

    def _age_ms(self, stamp: Any) -> float | None:
        if not stamp.sec and not stamp.nanosec:
            return None
        return self._node.get_clock().now().nanoseconds / 1e6 - (stamp.sec * 1e3 + stamp.nanosec / 1e6)

    def _change_look(self, parameters: Any) -> Any:
        """Whether new values are in order; if they are, the next overlay has them."""
        result = self._ros.rcl_interfaces.SetParametersResult
        try:
            values = {parameter.name: parameter.value for parameter in parameters}
            self._look = changed_look(self._look, values)
        except UserError as error:
            return result(successful=False, reason=str(error))
        return result(successful=True)

    def _report(self) -> None:
        report = self._health.report(*self._worker.counts)
        messages, backend = self._ros.diagnostic_msgs, self._segmenter.backend
        facts = (("backend", backend.name), ("precision", backend.precision))
        status = messages.DiagnosticStatus(
            level=bytes([report.level]),
            name=f"{self._node.get_fully_qualified_name()}: segmentation",
            message=report.message,
            hardware_id=self._segmenter.bundle.manifest.name,
            values=[messages.KeyValue(key=key, value=value) for key, value in (*report.values, *facts)],
        )
        array = messages.DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._diagnostics.publish(array)
