"""Fixtures of all tests."""

import os
from html import escape
from pathlib import Path

# Before torch is imported: the models are tiny, so a second thread makes them slower, and on a
# busy machine, where threads wait for one another, very much slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from model_folders import save_folder, tiny_llama


@pytest.fixture(scope="session", autouse=True)
def caches_left_full():
    """Time products without the 10 ms that emptying the caches takes before every one of them.

    No test judges how long a product took.
    """
    from thresher.run.measure import timing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_EVICTED_BYTES", 4)
        yield


@pytest.fixture(scope="session", autouse=True)
def pictures_left_out():
    """Write reports with empty pictures, which otherwise take longer than most of what they show.

    Tests of what is drawn ask for ``pictures``.
    """
    from thresher.report import charts

    def frame(figure, name, label, **size):
        return f'<svg role="img" aria-label="{escape(label)}"></svg>'

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "draw", frame)
        yield


@pytest.fixture
def pictures(monkeypatch):
    """Draw what reports show."""
    from thresher.core.drawing import draw
    from thresher.report import charts

    monkeypatch.setattr(charts, "draw", draw)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory) -> Path:
    """A folder with a tiny Llama in bfloat16."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    return save_folder(tiny_llama().to(torch.bfloat16), folder)


@pytest.fixture(scope="session")
def book(tmp_path_factory) -> Path:
    """A UTF-8 text file of 60,000 characters."""
    from thresher.parts.calibration import embedded_text

    file = tmp_path_factory.mktemp("texts") / "book.txt"
    file.write_text(embedded_text()[:60_000], encoding="utf-8")
    return file
