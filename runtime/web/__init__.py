"""The live page: what a robot without a display sees, in a browser on a desk or a phone."""

from .live_page import LivePage

__all__ = ["LivePage"]
