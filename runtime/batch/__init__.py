"""Recordings by the thousand: `fcn-run … --ray`, one model per GPU or core group, resumable. docs/batch.md says how."""

from __future__ import annotations

from .batch import BatchOptions, BatchResult, run_batch

__all__ = ["BatchOptions", "BatchResult", "run_batch"]
