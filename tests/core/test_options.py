"""Checks of options: what passes, and what the errors name."""

import numpy as np
import pytest

from thresher.core.errors import OptionError
from thresher.core.options import check_whole


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_whole_numbers_pass(value):
    check_whole("rank", value)


def test_the_least_may_be_lower():
    check_whole("offset", 0, least=0)
    with pytest.raises(OptionError, match=r"offset must be a whole number of at least 0, got -1"):
        check_whole("offset", -1, least=0)


@pytest.mark.parametrize("value", [0, -3, 2.0, 2.5, "3", True, None, float("nan")])
def test_others_are_named(value):
    with pytest.raises(OptionError, match="rank must be a whole number of at least 1, got"):
        check_whole("rank", value)
