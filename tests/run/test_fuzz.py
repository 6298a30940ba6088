"""Damaged folders end in a clean error or in what the text of the format says, nothing else."""

from __future__ import annotations

import faulthandler
import os
import sys
import time

import pytest
import torch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits processes as Linux does")

INPUTS = 2_000
#: Never the seed of the long run, so that both together see more.
SEED = 20_000


def test_whole_folders_mean_what_the_text_says(tmp_path):
    from benchmarks.fuzz.folders import whole_folders
    from benchmarks.fuzz.judge import judge

    drafts = whole_folders()
    assert len(drafts) > 25
    for number, draft in enumerate(drafts):
        folder = tmp_path / str(number)
        folder.mkdir()
        draft.write(folder)
        assert judge(folder) == "accepted", draft.config


def test_damaged_folders_are_refused_cleanly_or_mean_what_the_text_says():
    from benchmarks.fuzz.runs import run

    threads = torch.get_num_threads()
    try:
        found = run(INPUTS, SEED)
    finally:
        torch.set_num_threads(threads)
    assert found["anything_else"] == 0, found["examples"]
    assert found["refused"] + found["accepted"] == INPUTS
    # Damage that nothing notices, or that always ends the reading, would test little.
    assert min(found["refused"], found["accepted"]) > INPUTS // 5


def raw(folder):
    raise KeyError("raw")


def late(folder):
    time.sleep(60)


def crashing(folder):
    faulthandler.disable()
    os.abort()


@pytest.mark.parametrize(
    ("reader", "shown"), [(raw, "KeyError"), (late, "SIGKILL"), (crashing, "SIGABRT")]
)
def test_what_the_fuzz_looks_for_is_found(reader, shown, monkeypatch):
    from benchmarks.fuzz import runs

    monkeypatch.setattr(runs, "judge", reader)
    monkeypatch.setattr(runs, "SECONDS", 0.2)
    found = runs.run(2, 0)
    assert found["anything_else"] == len(found["examples"]) == 2
    assert all(shown in example for example in found["examples"])
