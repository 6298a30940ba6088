"""The layouts that Thresher brings; importing this package registers them."""

__all__ = [
    "BankBalanced",
    "Bitmask",
    "Blocks",
    "ConstantFanIn",
    "Csr",
    "GroupSparse4Bit",
    "GroupedNofM",
    "Int8Blocks",
    "NofM",
    "RowGroups",
    "SemiStructured",
    "Shrunk",
]

from .banks import BankBalanced
from .blocks import Blocks
from .grouped import GroupedNofM
from .indexed import ConstantFanIn, Csr
from .int8 import Int8Blocks
from .masked import Bitmask, NofM
from .quantized import GroupSparse4Bit
from .row_groups import RowGroups
from .semi_structured import SemiStructured
from .shrunk import Shrunk
