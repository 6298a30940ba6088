"""The record of a pruned model in tools that keep track of experiments, in their offline modes."""

import csv
import inspect
import sys

import pytest
import torch
from click.testing import CliRunner
from model_folders import tiny_llama
from torch import nn

import thresher as th
from thresher.cli import main
from thresher.core.errors import MissingPackageError, OptionError
from thresher.prune import tracking


@pytest.fixture(scope="module")
def record():
    found = th.prune(tiny_llama(layers=1), "magnitude", density=0.5, progress=False)
    found.evaluation = {"pruned_perplexity": 12.5, "digest": "abc", "more": {"windows": 3}}
    found.healing = {"loss_after": 0.25, "probes": [{"rate": 1.0}], "text": "book"}
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = tiny_llama(layers=1)
    th.prune(model, "magnitude", density=0.5, progress=False)
    path = tmp_path_factory.mktemp("tracked") / "small"
    th.save(model, path)
    return path


def test_figures_are_the_numbers_of_the_record(record):
    found = tracking.figures(record)
    assert found["thresher/density"] == record.density
    assert found["thresher/weights_kept"] == sum(layer.kept for layer in record.layers)
    assert found["thresher/evaluation/pruned_perplexity"] == 12.5
    assert found["thresher/evaluation/more/windows"] == 3
    assert found["thresher/healing/loss_after"] == 0.25
    assert all(type(value) is float for value in found.values())
    assert not any("digest" in name or "probes" in name for name in found)


def test_facts_tell_what_was_asked_for(record):
    found = tracking.facts(record)
    assert found["thresher/method"] == "magnitude"
    assert found["thresher/density_asked"] == 0.5
    assert found["thresher/versions/torch"] == record.versions["torch"]
    record.recipe, kept = "x" * 600, record.recipe
    assert len(tracking.facts(record)["thresher/recipe"]) == 500
    record.recipe = kept


class _Accelerates:
    def __init__(self):
        self.seen = []

    def store_init_configuration(self, values):
        self.seen.append(values)

    def log(self, values, step=None):
        self.seen.append((values, step))


class _Lightnings:
    def __init__(self):
        self.seen = []

    def log_hyperparams(self, values):
        self.seen.append(values)

    def log_metrics(self, values, step=None):
        self.seen.append((values, step))


@pytest.mark.parametrize("kind", [_Accelerates, _Lightnings])
def test_texts_and_numbers_go_where_each_tracker_takes_them(kind, record):
    tracker, numbers = kind(), []
    th.log_record(record, tracker, numbers.append)
    assert tracker.seen == [tracking.facts(record), (tracking.figures(record), None)]
    assert numbers == [tracking.figures(record)]


def test_nothing_is_sent_where_something_keeps_no_track(record):
    tracker = _Accelerates()
    with pytest.raises(OptionError, match=r"a dict keeps no track .* such as trainer\.log"):
        th.log_record(record, tracker, {})
    assert not tracker.seen


def test_the_callback_of_transformers_logs_the_record_where_the_trainer_reports(tmp_path):
    from accelerate import Accelerator
    from transformers import Trainer, TrainerCallback, TrainingArguments

    if "keep_torch_compile" not in inspect.signature(Accelerator.unwrap_model).parameters:
        pytest.skip("this accelerate is older than the trainer of this transformers wants")
    reported = []

    class Reports(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **given):
            reported.append(logs)

    model = tiny_llama(layers=1)
    record = th.prune(model, "magnitude", pattern="2:4", progress=False)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=1, report_to=[], use_cpu=True, weight_decay=0.1
    )
    ids = torch.arange(16)
    rows = [{"input_ids": ids, "labels": ids} for _ in range(8)]
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[Reports()])
    trainer.add_callback(th.HoldZeros(trainer.log))
    trainer.train()
    assert tracking.figures(record).items() <= reported[0].items()
    weight = model.model.layers[0].mlp.up_proj.weight
    assert int((weight == 0).sum()) == weight.numel() // 2


def test_lightning_holds_zeros_and_gives_its_loggers_the_record(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch", reason="thresher[lightning]")
    from lightning.pytorch.loggers import CSVLogger

    class Module(lightning.LightningModule):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def training_step(self, batch, index):
            return self.model(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.1, weight_decay=0.1)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 8))
    record = th.prune(model, "magnitude", pattern="2:4", progress=False)
    zeros = model[0].weight == 0
    before = model[0].weight.detach().clone()
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=CSVLogger(tmp_path),
        callbacks=[th.hold_in_lightning()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )
    rows = torch.utils.data.TensorDataset(torch.randn(16, 16))
    trainer.fit(Module(model), torch.utils.data.DataLoader(rows, batch_size=8))
    assert torch.equal(model[0].weight == 0, zeros)
    assert (model[0].weight != before)[~zeros].all()
    with open(trainer.logger.experiment.metrics_file_path) as file:
        first = next(csv.DictReader(file))
    assert float(first["thresher/density"]) == record.density
    assert trainer.logger.experiment.hparams["thresher/method"] == "magnitude"
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 16)).sum().backward()
    optimizer.step()  # Lightning has let go.
    assert (model[0].weight[zeros] != 0).any()


def test_lightning_is_said_to_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning.pytorch.callbacks", None)
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'thresher\[lightning\]'"):
        th.hold_in_lightning()


def _log(folder, where, to):
    result = CliRunner().invoke(main, ["log", str(folder), "--to", to, "--runs", str(where)])
    assert result.exit_code == 0, (result.output, result.exception)
    said = " ".join(result.output.split())
    assert f"figures of {folder} to {to}, project 'thresher'" in said


def test_tensorboard_reads_what_the_command_wrote(folder, tmp_path):
    pytest.importorskip("tensorboard", reason="thresher[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _log(folder, tmp_path, "tensorboard")
    # A folder for every model, whose files would be one run otherwise.
    events = EventAccumulator(str(tmp_path / folder.name / "thresher"))
    events.Reload()
    (density,) = events.Scalars("thresher/density")
    assert density.value == pytest.approx(0.5)


def test_a_run_of_wandb_is_kept_offline(folder, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="thresher[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    _log(folder, tmp_path, "wandb")
    (run,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"thresher/density_asked" in run.read_bytes()


def test_mlflow_finds_the_run(folder, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="thresher[mlflow]")
    pytest.importorskip("sqlalchemy", reason="mlflow-skinny keeps no runs in a file")
    monkeypatch.chdir(tmp_path)
    address = f"sqlite:///{tmp_path / 'runs.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    _log(folder, tmp_path, "mlflow")
    (run,) = mlflow.MlflowClient(address).search_runs(
        [mlflow.get_experiment_by_name("thresher").experiment_id]
    )
    assert run.data.metrics["thresher/density"] == pytest.approx(0.5)
    assert run.data.params["thresher/method"] == "magnitude"
    assert run.info.status == "FINISHED"


def test_a_tool_that_is_not_installed_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(MissingPackageError, match=r"thresher\[wandb\]"),
        tracking.tracking("wandb", "thresher", folder),
    ):
        pass


def test_what_a_tool_does_not_begin_is_said(folder, tmp_path, monkeypatch):
    import accelerate

    def refuse(*args, **options):
        raise ValueError("no key\nwas set")

    monkeypatch.setitem(sys.modules, "wandb", type(sys)("wandb"))
    monkeypatch.setattr(accelerate, "Accelerator", refuse)
    result = CliRunner().invoke(main, ["log", str(folder), "--to", "wandb"])
    assert result.exit_code == 1
    assert "wandb does not begin a run: no key was set;" in " ".join(result.output.split())


def test_a_folder_without_a_record_is_refused(llama_folder):
    result = CliRunner().invoke(main, ["log", str(llama_folder), "--to", "tensorboard"])
    assert result.exit_code == 1
    assert "no record was kept" in " ".join(result.output.split())
