"""Texts: what the functions promise of them."""

import pytest

from thresher.assets import gutenberg, state_of_the_union
from thresher.core.errors import OptionError


@pytest.mark.assets
def test_state_of_the_union_selects_years():
    first = state_of_the_union(1790, 1790)
    assert first.startswith("Fellow-Citizens of the Senate and House of Representatives")
    recent = state_of_the_union(2014, 2021)
    assert "lift America's graduation rate" in recent
    assert len(recent) > len(state_of_the_union(2020, 2021)) > len(first)
    # Two addresses were given in 1961, one by each president.
    assert state_of_the_union(1961, 1961).count("\n\n") == 1


@pytest.mark.assets
@pytest.mark.parametrize("years", [(1700, 1750), (2020, 2014)])
def test_state_of_the_union_refuses_years_without_address(years):
    with pytest.raises(OptionError, match="1790 to 2021"):
        state_of_the_union(*years)


@pytest.mark.assets
def test_gutenberg_books():
    assert gutenberg("Emma").startswith("[Emma by Jane Austen 1816]")
    with pytest.raises(OptionError, match="did you mean 'moby_dick'"):
        gutenberg("moby dick")
