"""The guide to sparse models of tables: its code runs, from top to bottom."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_code_of_the_guide_runs():
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == PAGE.count("```python")
    known = {}
    for block in blocks:
        exec(block, known)
    assert 0 in known["stable"].get_support(indices=True)
    assert known["sparser"].alpha_ == known["lowest"].alpha_one_se_
    assert 0.5 < known["model"].score(known["X"], known["times"]) <= 1
