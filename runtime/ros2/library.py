"""rclpy and the message packages, imported when the node starts: only a ROS 2 installation has them."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import NamedTuple

from ..errors import UserError

_WAYS = (
    "source your ROS 2 installation first (source /opt/ros/DISTRIBUTION/setup.bash, with the Python that it was built "
    "for), or on x86_64 Linux run: pip install 'fcnedge[ros]'"
)


class Ros(NamedTuple):
    """The modules that the node needs, Humble's names and later ones'."""

    rclpy: ModuleType
    executors: ModuleType
    qos: ModuleType
    qos_overriding_options: ModuleType
    utilities: ModuleType
    rcl_interfaces: ModuleType
    sensor_msgs: ModuleType
    diagnostic_msgs: ModuleType


def load_ros() -> Ros:
    """The modules. Raises UserError when one is not installed, or why it does not load."""
    return Ros(
        *map(
            _load,
            (
                "rclpy",
                "rclpy.executors",
                "rclpy.qos",
                "rclpy.qos_overriding_options",
                "rclpy.utilities",
                "rcl_interfaces.msg",
                "sensor_msgs.msg",
                "diagnostic_msgs.msg",
            ),
        )
    )


def _load(name: str) -> ModuleType:
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != package:  # rclpy says so of its own compiled part, built for another Python
            raise UserError(f"{package} is installed but does not load ({_first_line(error)}); {_WAYS}.") from error
        raise UserError(f"the ROS package {package} is not installed; {_WAYS}.") from error
    except ImportError as error:
        raise UserError(f"{package} is installed but does not load ({_first_line(error)}); {_WAYS}.") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
