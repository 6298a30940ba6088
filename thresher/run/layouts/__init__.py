"""The layouts that Thresher brings; importing this package registers them."""

__all__ = ["Bitmask", "Blocks", "Csr", "FanIn", "NofM", "Shrunk"]

from .blocks import Blocks
from .indexed import Csr, FanIn
from .masked import Bitmask, NofM
from .shrunk import Shrunk
