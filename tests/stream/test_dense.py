"""What the dense path gives layers, in a file."""

import errno
from contextlib import closing

import pytest
import torch
from torch import nn

from thresher.core.errors import DataError
from thresher.parts.coverage import find_layers
from thresher.stream.current import running
from thresher.stream.dense import DenseNotes
from thresher.stream.units import find_units


class File:
    """A file on a disk that is full, or that loses what was written."""

    def __init__(self, error=None):
        self.error = error

    def seek(self, *place):
        return 0

    def write(self, held):
        return held.nbytes

    def flush(self):
        if self.error:
            raise self.error

    def readinto(self, held):
        return held.nbytes // 2

    def close(self):
        pass


def noted(notes, model, x):
    (unit,) = find_units(model, find_layers(model))
    with notes.noting(unit), running(x, 3), torch.no_grad():
        model(x)
    return unit.layers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_given_comes_back_call_by_call(dtype, tmp_path):
    layer = nn.Linear(4, 4, dtype=dtype)
    model = nn.Sequential(layer)
    first, second = torch.randn(2, 2, 3, 4, dtype=dtype)
    with closing(DenseNotes(tmp_path)) as notes:
        layers = noted(notes, model, first)
        noted(notes, model, second.mT.contiguous().mT)
        assert torch.equal(notes.get(layers[0], 3, 0), first)
        assert torch.equal(notes.get(layers[0], 3, 1), second)
        assert notes.get(layers[0], 3, 2) is None
        assert notes.get(layers[0], 4, 0) is None
    assert not list(tmp_path.iterdir())


def test_a_full_disk_and_a_lost_file_are_told_of(tmp_path):
    model, x = nn.Sequential(nn.Linear(4, 4)), torch.randn(1, 3, 4)
    with closing(DenseNotes(tmp_path)) as notes:
        notes._file.close()
        notes._file = File(OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(DataError, match=r"could not be kept in .*No space left.*make room"):
            noted(notes, model, x)
        notes._file = File()
        layers = noted(notes, model, x)
        with pytest.raises(DataError, match="layer '0' cannot be read back"):
            notes.get(layers[0], 3, 0)
