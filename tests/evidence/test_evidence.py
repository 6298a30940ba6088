import json
import math
from pathlib import Path

import pytest

from thresher.core import evidence
from thresher.core.card import catalogue
from thresher.core.errors import CheckpointError, OptionError
from thresher.core.evidence import Experiment, Outcome, available, execute, load

RESULTS = Path(__file__).parents[2] / "evidence" / "results"
EACH = pytest.mark.parametrize("name", available())
KEYS = {
    "method",
    "claim",
    "baseline",
    "reproduced",
    "margin",
    "summary",
    "table",
    "seeds",
    "scale",
    "seconds",
    "versions",
}


def check(record):
    assert set(record) == KEYS
    assert record["method"] in catalogue()
    assert isinstance(record["reproduced"], bool)
    assert math.isfinite(record["margin"])
    # The verdict is the margin's sign, never a separate opinion.
    assert record["reproduced"] == (record["margin"] > 0)
    assert record["claim"].endswith(".")
    assert record["baseline"]
    assert record["summary"]
    assert record["table"]
    assert len({tuple(row) for row in record["table"]}) == 1
    assert record["seeds"]
    assert {"thresher", "torch", "numpy", "python"} <= set(record["versions"])


@EACH
def test_experiments_run_at_the_fast_scale(name, tmp_path):
    record = execute(name, scale=0.02, seeds=[0], folder=tmp_path)
    check(record)
    assert json.loads((tmp_path / f"{name}.json").read_text()) == record
    figure = json.loads((tmp_path / f"{name}.figure.json").read_text())
    assert figure["data"]
    assert figure["layout"]["xaxis"]["title"]["text"]
    assert "<html" in (tmp_path / f"{name}.html").read_text(encoding="utf-8")[:200]
    assert not list(tmp_path.glob("*.tmp"))


@EACH
def test_committed_results_are_of_the_default_scale(name):
    record = json.loads((RESULTS / f"{name}.json").read_text())
    check(record)
    experiment = load(name)
    assert record["scale"] == 1
    assert record["seeds"] == list(experiment.seeds)
    assert record["claim"] == experiment.claim
    assert record["baseline"] == experiment.baseline


def test_names_are_those_of_methods():
    assert set(available()) <= set(catalogue())
    assert {"lamp", "sparsegpt", "dsnot", "essential-sparsity"} <= set(available())
    assert all(load(name).method == name for name in available())
    assert load("Essential_Sparsity").method == "essential-sparsity"


@pytest.fixture
def stub(monkeypatch):
    """Stand in for an experiment with one that counts its seeds."""
    from plotly.graph_objects import Figure

    def run(scale, seeds):
        table = [{"seed": seed, "value": math.inf, "share": 1 / 3} for seed in seeds]
        return Outcome(True, scale, "It ran.", table, Figure())

    experiment = Experiment("lamp", "A claim.", "a baseline", run, seeds=(3, 4))
    monkeypatch.setattr(evidence, "load", lambda name: experiment)


def test_records_are_plain_json(stub, tmp_path):
    record = execute("lamp", scale=2.0, folder=tmp_path / "new" / "folder")
    assert record["seeds"] == [3, 4]
    assert record["margin"] == 2.0
    assert record["table"][0] == {"seed": 3, "value": None, "share": 0.333333}
    assert (tmp_path / "new" / "folder" / "lamp.json").is_file()


def test_a_folder_that_cannot_be_written_is_named(stub, tmp_path):
    (tmp_path / "lamp.figure.json").mkdir()
    (tmp_path / "lamp.figure.json" / "in the way").touch()
    with pytest.raises(CheckpointError, match="cannot write"):
        execute("lamp", folder=tmp_path)
    assert not (tmp_path / "lamp.json").exists()


@pytest.mark.parametrize("scale", [0, -1, float("nan")])
def test_scales_out_of_range_are_named(scale):
    with pytest.raises(OptionError, match=f"scale {scale} is out of range"):
        execute("lamp", scale=scale)


def test_no_seed_is_named():
    with pytest.raises(OptionError, match="at least one seed"):
        execute("lamp", seeds=[])


def test_unknown_methods_and_missing_evidence_are_named():
    with pytest.raises(OptionError, match="did you mean 'sparsegpt'"):
        load("sparsegtp")
    bare = sorted(set(catalogue()) - set(available()))
    if bare:
        with pytest.raises(OptionError, match=f"no evidence on method '{bare[0]}' yet.*lamp"):
            load(bare[0])
