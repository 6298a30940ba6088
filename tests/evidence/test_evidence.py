import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from thresher.evidence._timing import Timed

from thresher.core import evidence
from thresher.core.card import catalogue
from thresher.core.errors import CheckpointError, OptionError
from thresher.core.evidence import Earlier, Experiment, Outcome, available, execute, load

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
#: What records of runs before there were studies do not have.
SINCE_STUDIES = {"commit", "date", "earlier", "machine", "noise"}


def check(record):
    assert set(record) - {"slacks"} - SINCE_STUDIES == KEYS
    assert record["method"] in catalogue()
    assert isinstance(record["reproduced"], bool)
    # The verdict is the margin's sign, never a separate opinion.
    assert record["reproduced"] == ((record["margin"] or 0) > 0)
    if record["margin"] is not None and "slacks" in record:
        assert all(record["slacks"])
        assert record["margin"] == min(record["slacks"].values())
    assert record["claim"].rstrip(")").endswith(".")
    assert record["baseline"]
    assert record["summary"]
    assert record["table"]
    assert len({tuple(row) for row in record["table"]}) == 1
    assert record["seeds"]
    assert {"thresher", "torch", "numpy", "python"} <= set(record["versions"])


def check_rivals(judged, found):
    """With a rival in our method's place, the rule says no to what is found."""
    for ours, rivals in judged.against.items():
        for rival in rivals:
            slacks = judged.rule(found.swapped(ours, rival))
            assert not np.min(list(slacks.values())) > 0


def kind(name):
    """Return what an experiment shares with others: the study's class, and who draws problems."""
    study = load(name).run.study
    package, _, module = study.draw.__module__.rpartition(".")
    return type(study), study.draw.__module__ if module.startswith("_") else package


def seconds(name):
    """Return what an experiment took when its result was recorded."""
    return json.loads((RESULTS / f"{name}.json").read_text())["seconds"]


@pytest.mark.parametrize(
    "name", {kind(x): x for x in sorted(available(), key=seconds, reverse=True)}.values()
)
def test_experiments_run_at_the_fast_scale(name, tmp_path, monkeypatch):
    """The shortest of each kind; CI runs all of them by their own command."""
    judged, seeds = load(name).run, [0, 1]
    # In this process alone, as others are busy with tests.
    study = replace(judged.study, workers=1)
    if isinstance(study, Timed):  # emptying the caches would take most of the time
        study = replace(study, cold=False)
    found = study.run(0.02, seeds)
    check_rivals(judged, found)
    experiment = replace(load(name), run=lambda scale, seeds: judged.judge(found))
    monkeypatch.setattr(evidence, "load", lambda name: experiment)
    record = execute(name, scale=0.02, seeds=seeds, folder=tmp_path)
    check(record)
    assert set(record) >= SINCE_STUDIES
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
    assert set(record) >= SINCE_STUDIES
    assert record["earlier"] == [asdict(each) for each in experiment.earlier]
    assert experiment.run.note in record["summary"]


def test_names_are_those_of_methods():
    assert set(available()) <= set(catalogue())
    assert {"lamp", "sparsegpt", "dsnot", "essential-sparsity"} <= set(available())
    assert all(load(name).method == name for name in available())
    assert load("Essential_Sparsity").method == "essential-sparsity"


@pytest.fixture
def stub(monkeypatch):
    """Stand in for an experiment with one that counts its seeds."""
    from thresher.core.figure import Figure

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


def judged(slacks):
    from thresher.core.figure import Figure

    return Outcome.judged(slacks, "It ran.", [{"seed": 0}], Figure())


@pytest.mark.parametrize(
    ("slacks", "reproduced", "margin"),
    [
        ({"a": 2.0, "b": 0.5}, True, 0.5),
        ({"a": 2.0, "b": -0.5}, False, -0.5),
        ({"a": np.float64(2), "b": np.float64(0)}, False, 0.0),
        ({"a": math.inf, "b": 1}, True, 1.0),
    ],
)
def test_the_verdict_is_the_sign_of_the_least_slack(slacks, reproduced, margin):
    outcome = judged(slacks)
    assert (outcome.reproduced, outcome.margin) == (reproduced, margin)
    assert outcome.slacks == slacks


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_a_part_that_is_not_a_number_did_not_hold(order):
    slacks = {"a": math.nan, "b": 1.0}
    outcome = judged({part: slacks[part] for part in order})
    assert not outcome.reproduced
    assert math.isnan(outcome.margin)


@pytest.mark.parametrize(("reproduced", "margin"), [(False, 2.75), (True, 0.0), (True, math.nan)])
def test_a_verdict_cannot_disagree_with_the_margin(reproduced, margin):
    with pytest.raises(ValueError, match="least slack"):
        Outcome(reproduced, margin, "It ran.", [{"seed": 0}], None)


def test_slacks_are_recorded(monkeypatch):
    experiment = Experiment("lamp", "A claim.", "it", lambda *_: judged({"a": 1 / 3, "b": 2}))
    monkeypatch.setattr(evidence, "load", lambda name: experiment)
    record = execute("lamp")
    assert record["slacks"] == {"a": 0.333333, "b": 2.0}
    assert record["margin"] == 0.333333


def test_replaced_rules_are_recorded_with_their_verdict(monkeypatch):
    earlier = Earlier("above one", True, 0.5, "one was nothing")
    run = lambda *_: judged({"a": -1.0})  # noqa: E731
    experiment = Experiment("lamp", "A claim.", "it", run, earlier=(earlier,))
    monkeypatch.setattr(evidence, "load", lambda name: experiment)
    record = execute("lamp")
    assert not record["reproduced"]
    assert record["earlier"] == [
        {"rule": "above one", "reproduced": True, "margin": 0.5, "why": "one was nothing"}
    ]


def test_records_say_when_where_and_by_which_code(stub):
    record = execute("lamp")
    assert record["date"].count("-") == 2
    assert record["commit"] is None or len(record["commit"].split()[0]) == 40
    assert set(record["machine"]) >= {"processor", "cores", "threads", "load_before"}
    assert record["noise"] is None


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
