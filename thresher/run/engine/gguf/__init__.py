"""Models in GGUF files: ``file.py`` takes one apart, ``model.py`` builds from it.

``write.py`` makes one of a folder of transformers, with its ``tokenizer.py``. What both ways share
is in ``names.py`` and ``blocks.py``.
"""

__all__ = ["GGUFFile", "read_model"]

from .file import GGUFFile
from .model import read_model
