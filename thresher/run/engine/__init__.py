"""The engine: text from a language model in compiled code, with weights in few bits.

``architectures.py`` says which transformers models it runs and what tells them apart,
``formats.py`` how weights are rounded and laid out for the kernels, ``convert.py`` makes the
compiled model of a loaded one, ``sampling.py`` chooses tokens, ``text.py`` turns them into text as
they come, and ``engine.py`` is what users call.
"""

__all__ = ["Engine"]

from .engine import Engine
