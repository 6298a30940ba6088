"""Checks of options: what passes, and what the errors name."""

import numpy as np
import pytest

from thresher.core.errors import OptionError
from thresher.core.options import check_boolean, check_count, check_number, check_whole


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


def test_no_more_can_be_chosen_than_there_are():
    check_count("k", 4, 4)
    with pytest.raises(OptionError, match="cannot choose 5 of 4 columns; ask for 1 to 4"):
        check_count("k", 5, 4)
    with pytest.raises(OptionError, match=r"k must be a whole number of at least 1, got 2\.5"):
        check_count("k", 2.5, 4)


@pytest.mark.parametrize("value", [0, 0.5, np.float32(2.0), np.int64(3)])
def test_numbers_pass(value):
    check_number("alpha", value)


@pytest.mark.parametrize(
    "value", [-0.1, "1", True, None, float("nan"), float("inf"), [1.0], np.ones(2), 1j]
)
def test_what_is_no_number_is_named(value):
    with pytest.raises(OptionError, match="alpha must be a finite number of at least 0, got"):
        check_number("alpha", value)
    with pytest.raises(OptionError, match="share must be a number from -2 to -1, got"):
        check_number("share", value, -2.0, -1.0)


@pytest.mark.parametrize(
    ("ends", "span", "outside"),
    [
        ({"above": 0.0}, "finite number above 0, got 0", 0.0),
        ({"above": 0.0, "most": 1.0}, "number above 0 and at most 1, got 0", 0),
        ({"above": 0.0, "below": 1.0}, "number above 0 and below 1, got 1", 1),
        ({"least": 0.5, "below": 1.0}, r"number of at least 0\.5 and below 1, got 0\.4", 0.4),
    ],
)
def test_ends_may_be_left_out(ends, span, outside):
    check_number("step", 0.5, **ends)
    with pytest.raises(OptionError, match=f"step must be a {span}"):
        check_number("step", outside, **ends)


def test_switches_are_booleans():
    for value in (True, False, np.True_):
        check_boolean("flag", value)
    for value in (1, 0.0, "no", None):
        with pytest.raises(OptionError, match=f"flag must be True or False, got {value!r}"):
            check_boolean("flag", value)
