"""Names of devices."""

import pytest
import torch

from thresher.core.device import device_named
from thresher.core.errors import OptionError


def test_auto_is_what_there_is():
    assert device_named("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_named("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:1", "cuda:99", "", None])
def test_what_is_not_here_is_named(name):
    with pytest.raises(OptionError, match="device="):
        device_named(name)
