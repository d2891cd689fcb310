"""The camera and the listener of test_node.py, as a process of its own: it needs rclpy, and the tests may not have it.

    python peer.py FOLDER -- COMMAND…

Starts the node by COMMAND, does what FOLDER/script.json says, step by step, then sends the node SIGINT. Pixels come
from FOLDER/pixels.npz; FOLDER/result.json and FOLDER/pictures.npz tell what came back. A picture is sent again until
it is answered, for best-effort messages may be lost; no step is tried for longer than the watchdog's minute.
"""

# pyright: reportMissingImports=false

import array
import json
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

WATCHDOG_S = 60.0
TOPICS = ("mask", "color", "overlay")


class Peer:
    """arrived: (topic, seconds of the stamp) → the last message; reports: diagnostics, the newest last."""

    def __init__(self, folder: Path, command: list[str]):
        self.pixels = np.load(folder / "pixels.npz")
        self.pictures: dict[str, np.ndarray] = {}
        self.arrived: dict[tuple[str, int], Image] = {}
        self.reports: list[dict] = []
        self.node = rclpy.create_node("peer")
        newest = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        for topic in TOPICS:
            self.node.create_subscription(Image, f"/fcnedge/{topic}", self._keeper(topic), 10)
        self.node.create_subscription(DiagnosticArray, "/fcnedge/diagnostics", self._keep_report, 10)
        self.image = self.node.create_publisher(Image, "/fcnedge/image", newest)
        self.compressed = self.node.create_publisher(CompressedImage, "/fcnedge/image/compressed", newest)
        self.parameters = self.node.create_client(SetParameters, "/fcnedge/set_parameters")
        with (folder / "node.log").open("wb") as log:
            self.child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def send(self, step: dict) -> dict:
        """Send a picture until mask, colours and overlay of it are back."""
        stamp, message = step["stamp"], self._message(step)
        self._repeat(lambda: all((topic, stamp) in self.arrived for topic in TOPICS), lambda: self._publish(message))
        answers = {topic: self.arrived[topic, stamp] for topic in TOPICS}
        for topic, answer in answers.items():
            shape = (answer.height, answer.width) if topic == "mask" else (answer.height, answer.width, 3)
            self.pictures[f"{stamp}.{topic}"] = np.frombuffer(answer.data, np.uint8).reshape(shape)
        return {
            topic: [answer.encoding, answer.step, answer.header.frame_id, answer.header.stamp.nanosec]
            for topic, answer in answers.items()
        }

    def refuse(self, step: dict) -> dict:
        """Send a picture that is wrong, until a report tells of it."""
        message, seen = self._message(step), len(self.reports)
        told = lambda: [each for each in self.reports[seen:] if step["expected"] in each["message"]]  # noqa: E731
        self._repeat(told, lambda: self._publish(message))
        return told()[0]

    def burst(self, step: dict) -> dict:
        """Send pictures faster than the network takes them; give a report by which all are accounted for."""
        messages = [self._message({**step, "stamp": step["stamp"] + number}) for number in range(step["count"])]
        for message in messages:
            self._publish(message)
            rclpy.spin_once(self.node, timeout_sec=0.001)
        last = ("mask", step["stamp"] + step["count"] - 1)
        self._repeat(lambda: last in self.arrived, lambda: self._publish(messages[-1]))
        self._repeat(lambda: len(self.reports) > 1 and _quiet(*self.reports[-2:]), lambda: None)
        return self.reports[-1]

    def set(self, step: dict) -> dict:
        """Set a parameter, by the service that `ros2 param set` uses."""
        self._repeat(self.parameters.service_is_ready, lambda: None)
        values = [Parameter(name, value=value).to_parameter_msg() for name, value in step["values"].items()]
        answer = self.parameters.call_async(SetParameters.Request(parameters=values))
        self._repeat(answer.done, lambda: None)
        (result,) = answer.result().results
        return {"successful": result.successful, "reason": result.reason}

    def report(self, step: dict) -> dict:
        """Give the next report."""
        seen = len(self.reports)
        self._repeat(lambda: len(self.reports) > seen, lambda: None)
        return self.reports[-1]

    def crash(self, step: dict) -> dict:
        """Send a picture until the node is gone."""
        message = self._message(step)
        self._repeat(lambda: self.child.poll() is not None, lambda: self._publish(message), alive=False)
        return {}

    def close(self) -> int:
        """End the node as Ctrl-C does; give its exit code."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGINT)
        try:
            return self.child.wait(WATCHDOG_S)
        finally:
            self.child.kill()

    def _repeat(self, done, act, alive: bool = True) -> None:
        """Act and listen, in turns, until it is done."""
        end = monotonic() + WATCHDOG_S
        while not done():
            if alive and self.child.poll() is not None:
                raise SystemExit(f"the node ended with exit code {self.child.returncode}")
            if monotonic() > end:
                raise SystemExit("nothing came back for a minute")
            act()
            answer_by = monotonic() + 0.5
            while not done() and monotonic() < answer_by:
                rclpy.spin_once(self.node, timeout_sec=0.05)

    def _publish(self, message) -> None:
        (self.compressed if isinstance(message, CompressedImage) else self.image).publish(message)

    def _message(self, step: dict):
        data = array.array("B", self.pixels[step["pixels"]].tobytes())
        if "format" in step:
            message = CompressedImage(format=step["format"], data=data)
        else:
            message = Image(data=data, **{name: step[name] for name in ("height", "width", "encoding", "step")})
        message.header.stamp.sec, message.header.stamp.nanosec = step["stamp"], step.get("nanosec", 0)
        message.header.frame_id = step.get("frame_id", "")
        return message

    def _keeper(self, topic: str):
        def keep(message: Image) -> None:
            self.arrived[topic, message.header.stamp.sec] = message

        return keep

    def _keep_report(self, message: DiagnosticArray) -> None:
        (status,) = message.status
        values = {each.key: each.value for each in status.values}
        report = {"level": status.level[0], "name": status.name, "message": status.message, "values": values}
        self.reports.append({**report, "hardware_id": status.hardware_id, "stamp": message.header.stamp.sec})


def _quiet(before: dict, after: dict) -> bool:
    """Whether nothing happened between two reports."""
    count = "images received"
    return before["values"][count] == after["values"][count] and after["values"]["masks per second"] == "0.0"


def main() -> None:
    """Do the steps; write down the answers, those before a failure too."""
    folder, command = Path(sys.argv[1]), sys.argv[3:]
    rclpy.init()
    peer = Peer(folder, command)
    answers: list[dict] = []
    result: dict = {"answers": answers}
    steps = json.loads((folder / "script.json").read_text(encoding="utf-8"))
    try:
        answers.extend(getattr(peer, step["do"])(step) for step in steps)
    except SystemExit as error:
        result["failure"] = f"step {len(answers)}: {error}"
    finally:
        result["exit_code"] = peer.close()
        np.savez(folder / "pictures.npz", **peer.pictures)
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
        rclpy.shutdown()


if __name__ == "__main__":
    main()
