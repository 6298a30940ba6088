"""Examples of docstrings print what they say."""

import doctest
import sys

import pytest

from thresher import linear

CLASSES = [each for name in linear.__all__ if isinstance(each := getattr(linear, name), type)]
MODULES = sorted({each.__module__ for each in CLASSES if each.__module__.startswith("thresher.")})


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.filterwarnings("ignore")
def test_examples_print_what_they_say(module):
    assert doctest.testmod(sys.modules[module]).failed == 0
