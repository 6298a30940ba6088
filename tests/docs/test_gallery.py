"""The pages of the gallery on real data run, where their data were fetched before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from thresher.assets.fetch import is_cached
from thresher.assets.registry import ASSETS

ROOT = Path(__file__).parents[2]
SAID = {
    "survival": ["103 candidates in 172 rows, 75 deaths", "of 4 features"],
    "movielens": ["100004 ratings x 9737 people and films, 2 ones a row"],
}
DATA = {"survival": "heart", "movielens": "movielens"}


@pytest.mark.parametrize("page", SAID)
def test_a_page_prints_what_it_found(page):
    if not is_cached(ASSETS[DATA[page]]):
        pytest.skip("the page itself fetches the data")
    run = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", str(ROOT / "examples" / f"{page}.py")],
        env=os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for said in SAID[page]:
        assert said in run.stdout
