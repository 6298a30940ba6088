"""The guide to sparse models of tables: its code runs, from top to bottom."""

import pytest
from pages import snippets


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_code_of_the_guide_runs():
    known = {}
    for block in snippets("tables"):
        exec(block, known)
    assert 0 in known["stable"].get_support(indices=True)
    assert known["sparser"].alpha_ == known["lowest"].alpha_one_se_
    assert 0.5 < known["model"].score(known["X"], known["times"]) <= 1
