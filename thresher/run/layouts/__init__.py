"""The layouts that Thresher brings; importing this package registers them."""

__all__ = ["Bitmask", "NofM"]

from .masked import Bitmask, NofM
