"""Pruning from disk: the bytes, the memory, the kill, the full disk."""

import json
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import warm
from model_folders import save_folder, tiny_llama

import thresher as th
from thresher.core.errors import CheckpointError, LayerError, NumericalError, OptionError
from thresher.core.output import writing
from thresher.parts.budgets import CoarseToFine
from thresher.parts.calibration import read_text, token_windows
from thresher.parts.scores import GradientMagnitude, Magnitude
from thresher.prune import Recipe
from thresher.prune.disk import DiskOptions, DiskRun, prune_folder
from thresher.prune.memory import as_recipe
from thresher.run.files.checkpoint import Checkpoint


def weights(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = Checkpoint(folder)
    return {name: checkpoint.tensor(name) for name in checkpoint}


def windows(folder: Path, book: Path) -> torch.Tensor:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return token_windows(tokenizer, read_text(book), length=64, count=6)


def command(source: Path, out: Path, book: Path, *more: str) -> list[str]:
    return [
        *("-m", "thresher", "prune", str(source), "--out", str(out)),
        *("--calibration", str(book), "--windows", "6", "--length", "64", "--density", "0.5"),
        *("--no-evaluate", *more),
    ]


@pytest.mark.parametrize("method", ["sparsegpt", "wanda", "lamp", "magnitude"])
def test_agrees_with_pruning_in_memory(llama_folder, book, tmp_path, method):
    from transformers import AutoModelForCausalLM

    recipe = as_recipe(method).with_options(0.5)
    data = windows(llama_folder, book)
    record = prune_folder(llama_folder, tmp_path / "out", recipe, data)
    assert record.density == pytest.approx(0.5, abs=1e-3)
    model = AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.bfloat16)
    th.prune(model, recipe, data, progress=False)
    found = weights(tmp_path / "out")
    same = total = 0
    for name, parameter in model.named_parameters():
        if name in found and "proj" in name:
            same += int(((parameter == 0) == (found[name] == 0)).sum())
            total += parameter.numel()
    # Forward passes differ in precision (bfloat16 weights here, autocast there).
    assert same / total > 0.97


def test_slopes_from_disk_are_those_in_memory(llama_folder, book, tmp_path):
    from transformers import AutoModelForCausalLM

    recipe = Recipe(Magnitude(), budget=CoarseToFine(room=0.3), density=0.5)
    data = windows(llama_folder, book)
    options = DiskOptions(precision=torch.float32)
    record = prune_folder(llama_folder, tmp_path / "out", recipe, data, options)
    model = AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.bfloat16)
    again = th.prune(model, recipe, data, precision=torch.float32, progress=False)
    kept = {layer.name: layer.kept for layer in record.layers}
    assert kept == pytest.approx({layer.name: layer.kept for layer in again.layers}, rel=0.01)
    assert len({layer.kept / layer.size for layer in record.layers}) > 1


def test_gradients_from_disk_are_those_in_memory(llama_folder, book, tmp_path):
    from transformers import AutoModelForCausalLM

    recipe = Recipe(Magnitude() * GradientMagnitude(), density=0.5)
    data = windows(llama_folder, book)
    options = DiskOptions(precision=torch.float32)
    record = prune_folder(llama_folder, tmp_path / "out", recipe, data, options)
    model = AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.bfloat16)
    again = th.prune(model, recipe, data, precision=torch.float32, progress=False)
    assert [a.kept for a in record.layers] == [b.kept for b in again.layers]
    found = weights(tmp_path / "out")
    for name, parameter in model.named_parameters():
        if name in found and "proj" in name:
            assert ((parameter != 0) == (found[name] != 0)).float().mean() > 0.999, name


def test_spilling_hidden_states_changes_nothing(llama_folder, book, tmp_path):
    recipe, data = as_recipe("sparsegpt").with_options(0.5), windows(llama_folder, book)
    prune_folder(llama_folder, tmp_path / "a", recipe, data)
    prune_folder(llama_folder, tmp_path / "b", recipe, data, DiskOptions(spill=True))
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not list(tmp_path.glob("*/hidden-*"))


def test_killed_at_several_moments_it_resumes_to_the_same_bytes(book, tmp_path):
    source = save_folder(tiny_llama(layers=10, hidden=64), tmp_path / "model")
    warm.run(*command(source, tmp_path / "whole", book))
    for block in (1, 8):
        process = warm.Warm(command(source, tmp_path / "killed", book))
        wait_for_block(tmp_path / "killed", block, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed").exists()
    warm.run(*command(source, tmp_path / "killed", book))
    for file in (tmp_path / "whole").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "killed" / file.name).read_bytes()
    assert not remains(tmp_path / "killed")


def remains(out: Path) -> list[Path]:
    """Return the work folders beside an output folder, and its lock."""
    return list(out.parent.glob(f".{out.name}.*"))


def wait_for_block(out: Path, block: int, process: warm.Warm) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for state in out.parent.glob(f".{out.name}.*/progress.json"):
            if json.loads(state.read_text())["next"] >= block:
                return
        time.sleep(0.001)
    raise AssertionError(f"the run ended or hung before block {block}")


def test_interrupting_says_how_to_go_on(book, tmp_path):
    source = save_folder(tiny_llama(layers=10, hidden=64), tmp_path / "model")
    process = warm.Warm(command(source, tmp_path / "out", book))
    wait_for_block(tmp_path / "out", 1, process)
    process.send_signal(signal.SIGINT)
    done = process.wait()
    assert done.returncode == 130
    assert "goes on where it stopped" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_different_run_does_not_take_up_the_remains(llama_folder, book, tmp_path):
    recipe, data = as_recipe("wanda").with_options(0.5), windows(llama_folder, book)
    leave_unfinished(tmp_path / "out", {"fingerprint": "other", "next": 2})
    with pytest.raises(CheckpointError, match="unfinished run with other options"):
        prune_folder(llama_folder, tmp_path / "out", recipe, data)
    prune_folder(llama_folder, tmp_path / "out", recipe, data, DiskOptions(overwrite=True))
    assert (tmp_path / "out" / "thresher.json").is_file()


def leave_unfinished(out: Path, state: dict) -> Path:
    """Leave what a run that was stopped leaves; return its work folder."""
    with suppress(RuntimeError), writing(out, "prune", keep=True) as output:
        (output.work / "progress.json").write_text(json.dumps(state))
        raise RuntimeError
    return output.work


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_remains_that_were_changed_are_not_taken_up(damage, llama_folder, book, tmp_path):
    recipe, data = as_recipe("wanda").with_options(0.5), windows(llama_folder, book)
    whole = {"fingerprint": "", "next": 1, "digests": [""]}
    run = DiskRun(llama_folder, tmp_path / "out", recipe, data, DiskOptions(), {})
    work = leave_unfinished(tmp_path / "out", whole | {"fingerprint": run.fingerprint})
    shard = work / "made" / "thresher-00000.safetensors"
    if damage != "missing":
        shard.parent.mkdir()
        shard.write_bytes(b"changed")
    with pytest.raises(CheckpointError, match="missing or was changed"):
        prune_folder(llama_folder, tmp_path / "out", recipe, data)
    assert work.is_dir()


def test_another_source_of_the_same_size_is_another_run(llama_folder, book, tmp_path):
    """Its remains must not become a mixture of two models."""
    recipe, data = as_recipe("magnitude").with_options(0.5), windows(llama_folder, book)
    source = shutil.copytree(llama_folder, tmp_path / "model")
    before = DiskRun(source, tmp_path / "out", recipe, data, DiskOptions(), {}).fingerprint
    file = source / "model.safetensors"
    stored, damaged = file.stat(), bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    os.utime(file, ns=(stored.st_atime_ns, stored.st_mtime_ns))
    after = DiskRun(source, tmp_path / "out", recipe, data, DiskOptions(), {}).fingerprint
    assert before != after


def test_a_full_disk_loses_nothing(book, tmp_path):
    """A limit on the size of files stands in for a full disk."""
    source = save_folder(tiny_llama(layers=3, hidden=64), tmp_path / "model")
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000));"
        "from thresher.cli import main; main()"
    )
    arguments = command(source, tmp_path / "out", book)[2:]
    process = warm.run("-c", limited, *arguments, check=False)
    assert process.returncode == 1
    assert "cannot write" in process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("*.tmp"))
    warm.run(*command(source, tmp_path / "out", book))


def test_an_existing_output_folder_is_kept(llama_folder, book, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OptionError, match="exists"):
        prune_folder(llama_folder, tmp_path / "out", as_recipe("magnitude").with_options(0.5), None)


def test_damaged_weights_stop_the_run_and_name_the_layer(book, tmp_path):
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    source = save_folder(model, tmp_path / "model")
    with pytest.raises(NumericalError, match=r"layers\.1\.(mlp|self_attn)"):
        prune_folder(
            source,
            tmp_path / "out",
            as_recipe("sparsegpt").with_options(0.5),
            windows(source, book),
        )
    assert not (tmp_path / "out").exists()


def test_a_width_that_the_pattern_does_not_divide_is_named(llama_folder, tmp_path):
    recipe = as_recipe("magnitude").with_options(pattern="3:7")
    with pytest.raises(LayerError, match=r"q_proj.*divisible by 7.*32"):
        prune_folder(llama_folder, tmp_path / "out", recipe, None)


def test_half_of_a_bfloat16_model_takes_at_most_57_percent(llama_folder, book, tmp_path):
    for pattern in ("unstructured", "2:4"):
        recipe = as_recipe("wanda").with_options(0.5, pattern)
        prune_folder(
            llama_folder,
            tmp_path / "out",
            recipe,
            windows(llama_folder, book),
            DiskOptions(overwrite=True),
        )
        sparse = Checkpoint(tmp_path / "out")
        packed = [name for name in sparse if sparse.is_packed(name)]
        stored = sum(sparse.stored_bytes(name) for name in packed)
        dense = sum(sparse.dense_bytes(name) for name in packed)
        assert len(packed) == 21
        assert stored / dense <= 0.57


def test_untied_heads_and_dtypes(book, tmp_path):
    source = save_folder(tiny_llama(tie_word_embeddings=False), tmp_path / "model")
    recipe = as_recipe("wanda").with_options(pattern="2:4")
    prune_folder(
        source, tmp_path / "out", recipe, windows(source, book), DiskOptions(dtype=torch.bfloat16)
    )
    found = weights(tmp_path / "out")
    assert found["lm_head.weight"].count_nonzero() == found["lm_head.weight"].numel()
    assert {t.dtype for t in found.values()} == {torch.bfloat16}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert os.stat(tmp_path / "out" / "thresher-00000.safetensors").st_mode & 0o044
