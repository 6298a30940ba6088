"""A file of tensors is written whole, or what was there stays."""

import pytest
import torch
from safetensors.torch import load_file

from thresher.core.errors import CheckpointError
from thresher.run.files import writer


def test_a_write_that_fails_halfway_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    writer.save_tensors({"a": torch.ones(3)}, file)

    def full_disk(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "save_file", full_disk)
    with pytest.raises(CheckpointError, match="the disk is full"):
        writer.save_tensors({"a": torch.zeros(3)}, file)
    assert torch.equal(load_file(file)["a"], torch.ones(3))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
