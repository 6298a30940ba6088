"""Every architecture does what the documentation says of it."""

import pytest
import torch

from .models import ARCHITECTURES
from .table import documented, header, row
from .trial import CHECKS, Trial

#: Of all architectures; each is refused by an error that names the reason.
MOST_REFUSED = 3


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=str)
def trial(request, tmp_path_factory):
    architecture = request.param
    if architecture.missing:
        pytest.skip(architecture.missing)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trial = Trial(architecture, tmp_path_factory.mktemp("architecture"))
    yield trial
    trial.close()
    torch.set_num_threads(threads)


@pytest.mark.parametrize("check", CHECKS)
def test_an_architecture_does_what_the_table_says(trial, check):
    assert trial.outcome(check) == documented()[trial.architecture.name][check]


def test_the_table_has_a_row_for_every_architecture():
    assert list(documented()) == [architecture.name for architecture in ARCHITECTURES]


def test_nearly_nothing_is_refused_and_nothing_fails():
    rows = documented()
    refused = [name for name, cells in rows.items() if "refused" in cells.values()]
    assert len(refused) <= MOST_REFUSED, refused
    assert {cell for cells in rows.values() for cell in cells.values()} <= {"yes", "-", "refused"}


def test_a_row_is_read_as_it_was_written(tmp_path, monkeypatch):
    from . import table

    page = tmp_path / "page.md"
    cells = dict.fromkeys(CHECKS, "yes")
    page.write_text(f"# Title\n\n{header()}\n{row('BERT', 'BertModel', cells.values())}\n")
    monkeypatch.setattr(table, "PAGE", page)
    assert table.documented() == {"BERT": cells}
