"""The layouts that Thresher brings; importing this package registers them."""

__all__ = ["Bitmask", "Csr", "FanIn", "NofM"]

from .indexed import Csr, FanIn
from .masked import Bitmask, NofM
