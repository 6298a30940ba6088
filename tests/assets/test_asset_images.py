"""Images: shapes, labels that belong to them."""

import numpy as np
import pytest

from thresher.assets import cifar10, mnist

pytestmark = pytest.mark.assets


def nearest_mean_accuracy(train, test) -> float:
    """Accuracy of the classifier that picks the class with the closest mean image."""
    (images, labels), (unseen, truth) = train, test
    flat = images.reshape(len(images), -1).astype(np.float32)
    means = np.stack([flat[labels == c].mean(axis=0) for c in range(10)])
    rows = unseen.reshape(len(unseen), -1).astype(np.float32)
    distance = (means**2).sum(axis=1) - 2 * rows @ means.T
    return float((distance.argmin(axis=1) == truth).mean())


def test_mnist():
    train, test = mnist()
    assert train[0].shape == (60000, 28, 28)
    assert test[0].shape == (10000, 28, 28)
    assert all(a.dtype == np.uint8 for split in (train, test) for a in split)
    assert np.array_equal(np.unique(test[1]), np.arange(10))
    assert nearest_mean_accuracy(train, test) > 0.8


def test_cifar10():
    train, test = cifar10()
    assert train[0].shape == (50000, 32, 32, 3)
    assert test[0].shape == (10000, 32, 32, 3)
    assert all(a.dtype == np.uint8 for split in (train, test) for a in split)
    assert np.array_equal(np.bincount(test[1]), np.full(10, 1000))
    assert nearest_mean_accuracy(train, test) > 0.25
