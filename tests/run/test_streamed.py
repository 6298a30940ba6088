"""Dense folders: files named and parted as the hub has it, written tensor by tensor."""

import json

import pytest
import torch
from model_folders import tiny_llama
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import thresher as th
from thresher.core.errors import CheckpointError
from thresher.run.files import export as exporting
from thresher.run.files.streamed import stream_tensors
from thresher.run.files.tensors import spelled


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    model = tiny_llama(layers=2)
    th.prune(model, "magnitude", density=0.5, progress=False)
    folder = tmp_path_factory.mktemp("streamed") / "small"
    th.save(model, folder)
    return folder, model


def loaded(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def test_a_small_model_is_one_file_without_an_index(sparse, tmp_path):
    folder, model = sparse
    th.export(folder, tmp_path / "plain")
    assert [f.name for f in (tmp_path / "plain").glob("model*")] == ["model.safetensors"]
    again = loaded(tmp_path / "plain")
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_large_model_is_parted_as_the_hub_has_it(sparse, tmp_path, monkeypatch):
    folder, model = sparse
    most = 20_000
    monkeypatch.setattr(exporting, "_DENSE_SHARD_BYTES", most)
    plain = tmp_path / "plain"
    th.export(folder, plain)
    names = sorted(f.name for f in plain.glob("*.safetensors"))
    assert len(names) > 2
    assert names == [
        f"model-{i + 1:05d}-of-{len(names):05d}.safetensors" for i in range(len(names))
    ]
    held = json.loads((plain / "model.safetensors.index.json").read_text())["weight_map"]
    for name in names:
        tensors = load_file(plain / name)
        assert {held[tensor] for tensor in tensors} == {name}
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        assert size <= most or len(tensors) == 1
    again = loaded(plain)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_files_are_those_of_the_library(tmp_path):
    made = torch.Generator().manual_seed(0)
    tensors = {
        f"{index:02d}.{name}": torch.randint(0, 2, shape, generator=made).to(dtype)
        for index, shape in enumerate([(3, 5), (), (0, 2), (7,)])
        for dtype, name in spelled.items()
        if "F8" not in name or shape
    }
    outlines = {name: torch.empty_like(t, device="meta") for name, t in tensors.items()}
    stream_tensors(tmp_path / "ours", outlines, tensors.__getitem__)
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    with safe_open(tmp_path / "ours", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    ours, theirs = load_file(tmp_path / "ours"), load_file(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert ours[name].dtype == theirs[name].dtype
        assert ours[name].shape == theirs[name].shape
        assert torch.equal(
            ours[name].view(-1).view(torch.uint8), theirs[name].view(-1).view(torch.uint8)
        )
    assert (tmp_path / "ours").stat().st_size == (tmp_path / "theirs").stat().st_size


def test_one_tensor_is_held_at_a_time(tmp_path):
    import gc
    import weakref

    alive = weakref.WeakSet()

    def read(name):
        gc.collect()
        assert len(alive) <= 1
        tensor = torch.full((8, 8), float(name))
        alive.add(tensor)
        return tensor

    outlines = {str(i): torch.empty(8, 8, device="meta") for i in range(5)}
    stream_tensors(tmp_path / "file", outlines, read)
    assert load_file(tmp_path / "file")["4"][0, 0] == 4


def test_a_tensor_that_changed_meanwhile_leaves_what_was_there(tmp_path):
    (tmp_path / "file").write_text("before")
    outlines = {"weight": torch.empty(2, 3, device="meta")}
    with pytest.raises(CheckpointError, match=r"'weight' was torch.float32 \(2, 3\) and is now"):
        stream_tensors(tmp_path / "file", outlines, lambda name: torch.zeros(3, 2))
    assert [f.name for f in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"
