"""The engine: text from a language model in compiled code, with weights in few bits.

``loading.py`` is where models come from: ``convert.py`` takes loaded transformers models, of those
that ``architectures.py`` tells apart, ``gguf/`` GGUF files, ``store.py`` folders of the engine's.
All of them make what is in ``model.py``, in the formats of ``formats.py``, which ``quantize.py``
rounds to. ``session.py`` has texts on their way through the model; ``sampling.py`` chooses tokens,
which ``token.py`` says how likely they were, ``continuation.py`` is a text that grows by them,
``text.py`` turns them into text as they come, and ``engine.py`` is what users call, with
``chat.py`` for conversations.
"""

__all__ = ["Engine"]

from .engine import Engine
