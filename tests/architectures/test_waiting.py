"""Samples that wait inside the blocks of any architecture leave it pruned as passes would."""

import pytest
import torch

import thresher as th
from thresher.parts import updates
from thresher.prune.best import Best
from thresher.stream.visit import Visit

from .models import ARCHITECTURES
from .trial import LEAST_AGREEMENT

RECIPE = Best(update=updates.DenseTarget(updates.OBS()), density=0.5)


def pruned(architecture):
    model = architecture.build()
    th.prune(model, RECIPE, architecture.samples(), progress=False)
    return model.state_dict()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_an_architecture_is_pruned_the_same(architecture, monkeypatch):
    if architecture.missing:
        pytest.skip(architecture.missing)
    waited = pruned(architecture)
    monkeypatch.setattr(Visit, "pause_at", lambda visit, stages: False)
    passed = pruned(architecture)
    same = torch.cat([((waited[name] != 0) == (passed[name] != 0)).flatten() for name in passed])
    assert same.float().mean() >= LEAST_AGREEMENT
