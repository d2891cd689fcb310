"""TensorRT 8.5 to 11 and TensorRT-RTX 1: one API, whose differences are found by feature.

A feature is a name that the module has or has not. Version numbers decide nothing, for JetPack's releases carry their
own, and neither do the integers of enumerations: they moved in TensorRT 11.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from dataclasses import dataclass
from typing import Any

from fcnedge.runtime.errors import UserError

_TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
# pip's TensorRT-RTX has its module under the second name when installed without its umbrella package.
_MODULES = {"tensorrt": ("tensorrt",), "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_MISSING = {
    "tensorrt": "use JetPack's on a Jetson (a virtual environment sees it when created with --system-site-packages), "
    "and elsewhere run: pip install 'fcnedge[tensorrt]'",
    "tensorrt_rtx": "install it with: pip install 'fcnedge[rtx]'",
}


@dataclass(frozen=True)
class Library:
    """An imported TensorRT. name: "tensorrt" or "tensorrt_rtx"; module: the Python module itself."""

    name: str
    module: Any

    @property
    def version(self) -> str:
        """In full, such as 10.3.0 or 1.7.1.116."""
        return str(self.module.__version__)

    @property
    def title(self) -> str:
        """What messages call it: TensorRT-RTX 1.7.1.116."""
        return f"{_TITLES[self.name]} {self.version}"

    @property
    def has_precision_flags(self) -> bool:
        """Whether the builder can be allowed FP16 and INT8. TensorRT 11 and TensorRT-RTX cannot: it is in the graph."""
        return has_member(self.module, "BuilderFlag", "FP16") and has_member(self.module, "BuilderFlag", "INT8")

    @property
    def has_strong_typing(self) -> bool:
        """Whether precision can be left to the graph: by a creation flag, or because there is no other way."""
        flag = has_member(self.module, "NetworkDefinitionCreationFlag", "STRONGLY_TYPED")
        return flag or not self.has_precision_flags

    @property
    def has_calibrators(self) -> bool:
        """Whether INT8 ranges can come from a calibration cache; TensorRT 11 has removed all calibrators."""
        return hasattr(self.module, "IInt8EntropyCalibrator2") and self.has_precision_flags

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        """Those that can be compiled for with no such GPU at hand, such as 8.6; none for TensorRT."""
        members = getattr(getattr(self.module, "ComputeCapability", None), "__members__", {})
        if not hasattr(self.module.IBuilderConfig, "set_compute_capability"):
            return ()
        return tuple(f"{name[2:-1]}.{name[-1]}" for name in members if name[:2] == "SM" and name[2:].isdigit())

    def network_flags(self, *, strongly_typed: bool) -> int:
        """What create_network takes. TensorRT 8 and 9 must be told that the batch is in the shapes; 10 ignores it."""
        names = ["EXPLICIT_BATCH", *(["STRONGLY_TYPED"] if strongly_typed else [])]
        flags = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TensorRT 11 is strongly typed without being asked
            for name in names:
                if has_member(self.module, "NetworkDefinitionCreationFlag", name):
                    flags |= 1 << int(getattr(self.module.NetworkDefinitionCreationFlag, name))
        return flags


def has_member(module: Any, enumeration: str, member: str) -> bool:
    """Whether `module` has that enumeration with that member."""
    return hasattr(getattr(module, enumeration, None), member)


def open_library(target: str) -> Library:
    """Import "tensorrt" or "tensorrt_rtx". Raises UserError that says how to get it, or why it does not load."""
    name = next((name for name in _MODULES[target] if _is_installed(name)), None)
    if name is None:
        raise UserError(f"{target} is not installed; {_MISSING[target]}.")
    try:
        return Library(target, importlib.import_module(name))
    except (ImportError, OSError) as error:  # a shared library that is missing or of another machine
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{target} is installed but cannot be loaded ({first}); reinstall it: {_MISSING[target]}."
        ) from error


def _is_installed(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None
