"""Several processes heal one model: they share out the windows, and end with the same weights."""

import copy
import json
import sys
from dataclasses import asdict

import pytest
import torch
import torch.multiprocessing as multiprocessing
from model_folders import tiny_llama
from safetensors.torch import load_file, save_file

import thresher as th
from thresher.core.errors import DataError
from thresher.prune.heal import run
from thresher.prune.heal.session import HealOptions, Session
from thresher.prune.heal.state import HealState


def healed(work, seed=0):
    """Heal a small model in 20 seconds, each look at the clock being one."""
    run._RATES = (1e-2, 1e-2, 1e-2)
    dense = tiny_llama(layers=2, initializer_range=0.2).eval()
    model = copy.deepcopy(dense)
    th.prune(model, "magnitude", pattern="2:4", progress=False)
    ids = torch.randint(256, (10, 16), generator=torch.Generator().manual_seed(seed))
    samples = [{"input_ids": row[None]} for row in ids]
    looks = iter(range(1000))
    options = HealOptions(1 / 3, progress=False, clock=lambda: float(next(looks)))
    names = {"teacher": "t", "text": "x"}
    with Session(model, dense, samples, options, names, work, HealState(), False).healed() as found:
        return found, {n: p.detach().clone() for n, p in model.named_parameters()}


def one_of_two(rank, folder, seeds):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    try:
        found, values = healed(folder / "work", seeds[rank])
        save_file(values, folder / f"{rank}.safetensors")
        (folder / f"{rank}.json").write_text(json.dumps(asdict(found)))
    except DataError as error:
        (folder / f"{rank}.txt").write_text(str(error))
    finally:
        torch.distributed.destroy_process_group()


def in_two_processes(folder, seeds):
    multiprocessing.start_processes(
        one_of_two, (folder, seeds), nprocs=2, join=True, start_method="fork"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
def test_two_processes_end_as_one(tmp_path):
    in_two_processes(tmp_path, (0, 0))
    expected, weights = healed(tmp_path / "alone")
    first = load_file(tmp_path / "0.safetensors")
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["steps"] == expected.steps > 5
        assert found["loss_after"] == pytest.approx(expected.loss_after, rel=1e-3)
        assert found["loss_after"] < found["loss_before"]
        for name, value in load_file(tmp_path / f"{rank}.safetensors").items():
            assert torch.equal(value, first[name]), name
            torch.testing.assert_close(value, weights[name], rtol=1e-2, atol=1e-3)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
def test_processes_that_read_another_text_are_refused(tmp_path):
    in_two_processes(tmp_path, (0, 1))
    for rank in range(2):
        assert "the text to heal on differs" in (tmp_path / f"{rank}.txt").read_text()
