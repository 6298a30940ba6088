"""Records go along with copies of what they are about, and not into pickles."""

import copy
import io
import pickle
import subprocess
import sys

import torch
from torch import nn

from thresher.core.remembered import remember, remembered


def test_a_copy_has_the_record_until_it_gets_its_own():
    model = nn.Linear(2, 2)
    remember(model, "pruned")
    for kind in (copy.copy, copy.deepcopy):
        other = kind(model)
        assert remembered(other) == "pruned"
        remember(other, "pruned again")
        remember(other, "activated", "activations")
        assert remembered(other) == "pruned again"
        assert (remembered(model), remembered(model, "activations")) == ("pruned", None)


def test_nothing_is_remembered_of_what_nothing_was_done_to():
    assert remembered(nn.Linear(2, 2)) is None


def test_a_pickle_loads_without_thresher(tmp_path):
    model = nn.Linear(2, 2)
    remember(model, "pruned")
    torch.save(model, tmp_path / "model.pt")
    code = (
        "import sys, torch; torch.load(sys.argv[1], weights_only=False); "
        "assert not [name for name in sys.modules if name.startswith('thresher')]"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "model.pt"], check=True)
    again = pickle.load(io.BytesIO(pickle.dumps(model)))
    assert remembered(again) is None
    remember(again, "pruned")
    assert remembered(copy.deepcopy(again)) == "pruned"
