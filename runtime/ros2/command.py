"""The node as a process: from ROS's arguments to its end by Ctrl-C, SIGTERM or `ros2 launch`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ..command import Parser, run_command
from ..errors import UserError
from .library import Ros, load_ros
from .node import MaskNode
from .parameters import NodeParameters

NAME = "fcnedge"
"""The node's name, unless `-r __node:=NAME` gives it another."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is told to end; returns the exit code: 0 then, 2 after one line for a user's error."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return run_command(lambda: _serve(arguments), NAME)


def _serve(arguments: Sequence[str]) -> None:
    if "-h" in arguments or "--help" in arguments:  # without ROS too
        _parser().parse_args(["--help"])
    ros = load_ros()
    words = [NAME, *arguments]
    try:
        with _saying_why_not():
            ros.rclpy.init(args=words)
        _parser().parse_args(ros.utilities.remove_ros_args(words)[1:])
        with _saying_why_not():
            node = ros.rclpy.create_node(NAME)
        try:
            _run(ros, node)
        finally:
            node.destroy_node()
    finally:
        ros.rclpy.try_shutdown()


@contextlib.contextmanager
def _saying_why_not() -> Iterator[None]:
    """Raise UserError for what rclpy raises: wrong arguments, domain or middleware, in types that are not public."""
    try:
        yield
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"ROS does not start: {reason}") from error


def _parser() -> Parser:
    lines = [f"  {field.name}  {field.metadata['help']}" for field in dataclasses.fields(NodeParameters)]
    return Parser(
        prog=f"python -m {__package__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s --ros-args [-p NAME:=VALUE …] [-r ~/image:=/camera/image_raw …]",
        description="A ROS 2 node that segments images: ~/image and ~/image/compressed in; ~/mask, ~/color, ~/overlay\n"
        "and ~/diagnostics out. Parameters:\n" + "\n".join(lines),
    )


def _run(ros: Ros, node: Any) -> None:
    """Segment until Ctrl-C, SIGTERM or a shutdown from elsewhere: a node's only ends, and no errors."""
    bugs: list[BaseException] = []

    def failed(error: BaseException) -> None:
        bugs.append(error)
        ros.rclpy.try_shutdown()  # ends the spinning

    ends = (KeyboardInterrupt, ros.executors.ExternalShutdownException)
    with contextlib.closing(MaskNode(ros, node, failed)), contextlib.suppress(*ends):
        ros.rclpy.spin(node)
    if bugs:
        raise bugs[0]
