"""`torchrun -m thresher prune`: two processes prune a folder as one does, or say why not."""

import os
import socket
import sys

import pytest
import torch
import torch.multiprocessing as multiprocessing
from click.testing import CliRunner
from model_folders import save_folder, tiny_llama
from transformers import AutoModelForCausalLM

from thresher.cli import main
from thresher.prune import disk

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    place = tmp_path_factory.mktemp("ranks") / "dense"
    return save_folder(tiny_llama(layers=2, initializer_range=0.2), place)


def prune(dense, out, text, method, *more):
    options = ("--method", method, "--density", 0.5, "--windows", 5, "--length", 32)
    arguments = ("prune", dense, "--out", out, "--calibration", text, *options, *more)
    return CliRunner().invoke(main, [str(each) for each in arguments])


def one_of_two(rank, port, folder, dense, texts, method, more):
    """Do as a process that torchrun has started."""
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "WORLD_SIZE": "2",
    }
    real = disk.share_of

    def noting(samples):
        share = real(samples)
        (folder / f"{rank}.share").write_text(str(len(share)))
        return share

    disk.share_of = noting
    result = prune(dense, folder / "out", texts[rank], method, *more)
    (folder / f"{rank}.txt").write_text(f"{result.exit_code} {result.output}")


def in_two_processes(folder, dense, texts, method, *more):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(
        one_of_two,
        (port, folder, dense, texts, method, more),
        nprocs=2,
        join=True,
        start_method="fork",
    )
    return [" ".join((folder / f"{rank}.txt").read_text().split()) for rank in range(2)]


def support(folder):
    weights = AutoModelForCausalLM.from_pretrained(folder).model.layers.parameters()
    return torch.cat([(weight != 0).flatten() for weight in weights])


@pytest.mark.parametrize(
    ("method", "more", "least"),
    [
        ("sparsegpt", (), 0.99),
        ("sparsegpt", ("--update", "dense-target", "--tokens", "attention", "--stages"), 0.99),
        # ADMM's supports hang on roundings: windows in another order move 5 % of the masks too.
        ("best", ("--spill",), 0.9),
        ("wanda", ("--budget", "owl", "--curve"), 0.99),
        # Rows that processes hold of their own are put together.
        ("sparsellm", (), 0.98),
    ],
)
def test_two_processes_prune_as_one(method, more, least, dense, book, tmp_path):
    said = in_two_processes(tmp_path, dense, (book, book), method, *more)
    assert [each[:1] for each in said] == ["0", "0"], said
    assert "wrote" not in said[1]
    shares = [int((tmp_path / f"{rank}.share").read_text()) for rank in range(2)]
    assert sorted(shares) == [2, 3]
    assert "perplexity, pruned" in said[0]
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"out"}
    assert prune(dense, tmp_path / "alone", book, method, *more).exit_code == 0
    found, expected = support(tmp_path / "out"), support(tmp_path / "alone")
    # Moments are summed in another order.
    assert float((found == expected).float().mean()) > least
    assert (tmp_path / "out" / "report.html").is_file()


def test_processes_that_read_other_texts_are_refused(dense, book, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(book.read_text()[999:])
    for said in in_two_processes(tmp_path, dense, (book, other), "sparsegpt"):
        assert said.startswith("1 ")
        assert "the calibration data differs between processes" in said
    assert sorted(os.listdir(tmp_path)) == ["0.txt", "1.txt", "other.txt"]


def test_what_the_first_process_cannot_write_all_say(dense, book, tmp_path):
    assert prune(dense, tmp_path / "out", book, "magnitude").exit_code == 0
    for said in in_two_processes(tmp_path, dense, (book, book), "sparsegpt"):
        assert said.startswith("1 ")
        assert "exists, and is not of this run" in said
