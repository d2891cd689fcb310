"""Times that others published, each with its source: what is fitted to, and what is checked against."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fcnedge.runtime.errors import missing_package

from .device import Device, find_device
from .graph import Network, read_network

_FILE = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Published:
    """One published time. size: (height, width); use: `fit`, `check` or `left out`, with the reason."""

    network: str
    device: Device
    precision: str
    size: tuple[int, int]
    ms: float
    source: str
    url: str
    published: str
    software: str
    use: str
    reason: str | None

    def graph(self) -> Network:
        """The kernels of the network that was measured, in what the device computes instead of its precision."""
        return _network(self.network, self.size, self.device.rates.computed_in(self.precision))


@cache
def published() -> tuple[Published, ...]:
    """All of published.json, in its order."""
    data = json.loads(_FILE.read_text(encoding="utf-8"))
    return tuple(
        Published(
            network,
            find_device(table["device"]),
            table["precision"],
            (table["size"][0], table["size"][1]),
            1e3 / value if table["unit"] == "fps" else value,
            *(table[key] for key in ("source", "url", "published", "software", "use")),
            reason=table.get("reason"),
        )
        for table in data["tables"]
        for network, value in table["values"].items()
    )


@cache
def _network(name: str, size: tuple[int, int], precision: str) -> Network:
    try:
        from .networks import NETWORKS
    except ImportError as error:
        raise missing_package("onnx", extra="build") from error
    return read_network(NETWORKS[name](*size), precision=precision)
