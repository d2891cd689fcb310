"""Errors that fcnedge raises.

FcnEdgeError
├── UserError            something the user can put right; commands print its one sentence and exit 2
│   ├── BundleError      a bundle that is damaged, edited, unknown or not a bundle
│   ├── SourceError      a picture, folder, video or camera that cannot be read
│   └── BackendError     a backend that is missing or cannot run this bundle
└── (any other exception is a bug: commands show its traceback and exit 1)
"""

from __future__ import annotations


class FcnEdgeError(Exception):
    """Base of every error that fcnedge raises on purpose; catch it around a whole application."""


class UserError(FcnEdgeError):
    """Input, installation or options that the user can put right. The message says what to do."""


class BundleError(UserError):
    """The bundle is damaged, edited by hand, of an unknown format, or not a bundle; rebuild or copy it again."""


class SourceError(UserError):
    """The source of frames cannot be opened or read; choose another or repair it."""


class BackendError(UserError):
    """No backend, or not the one asked for, can run this bundle here; install its package or choose another."""


def missing_package(package: str, *, extra: str) -> UserError:
    """The one error for a package that is not installed; names the extra that brings it."""
    return UserError(f"{package} is not installed; install it with: pip install 'fcnedge[{extra}]'")
