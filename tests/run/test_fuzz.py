"""Damaged folders end in a clean error or in what the text of the format says, nothing else."""

from __future__ import annotations

import sys

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


def test_what_the_fuzz_looks_for_is_found(tmp_path, monkeypatch):
    """A reader that reads something else, raises, hangs or crashes is counted as such."""
    import os
    import time

    from benchmarks.fuzz import runs

    def misread(folder):
        number = int.from_bytes((folder / "config.json").read_bytes(), "little") % 4
        if number == 0:
            raise KeyError("raw")
        if number == 1:
            time.sleep(60)
        if number == 2:
            os.abort()
        return "refused"

    monkeypatch.setattr(runs, "judge", misread)
    monkeypatch.setattr(runs, "SECONDS", 0.5)
    found = runs.run(8, 0)
    assert found["anything_else"] == 8 - found["refused"] > 0
    shown = " ".join(found["examples"])
    assert "KeyError" in shown or "SIGABRT" in shown or "SIGKILL" in shown
