"""Fusion of FCN graphs: one rule per file, its algebra in the docstring, every refusal in the report."""

from .fuse import FusionReport, fuse
from .last_upsampling import BilinearTail
from .report import Refusal, RuleReport

__all__ = ["BilinearTail", "FusionReport", "Refusal", "RuleReport", "fuse"]
