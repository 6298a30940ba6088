"""Models in GGUF files: ``file.py`` takes one apart, and ``model.py`` builds from it."""

__all__ = ["GGUFFile", "read_model"]

from .file import GGUFFile
from .model import read_model
