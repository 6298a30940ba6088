"""The benchmark for CUDA devices, where there is none."""

from __future__ import annotations

import pytest
import torch

from benchmarks import cuda


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["cuda", "--out", str(tmp_path / "new" / "cuda.json")])
    assert cuda.main() == 1
    assert "no CUDA device" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_rows_hold_ratios_or_the_reason_for_none():
    rows = list(cuda.measured(torch.device("cpu"), [(64, 128)], (1, 3), repeats=1))
    skipped = [row for row in rows if "skipped" in row]
    assert [(row["case"], row["skipped"]) for row in skipped] == [
        ("semi-structured 2:4 0.5 bfloat16", "only CUDA devices multiply it")
    ]
    timed = [row for row in rows if row not in skipped]
    assert len(timed) == 2 * (len(cuda.CASES) - 1)
    for row in timed:
        assert row["ratios"]["dense bf16"] == row["rival_seconds"]["dense bf16"] / row["seconds"]
        assert row["bytes_of_dense_bf16"] < 1
    assert cuda.table(rows, "a device").row_count == len(rows)
