"""The answers to a buyer's questions, and the commands that go on from there."""

import math
import statistics

import pytest

from thresher.prune.record import PruneRecord
from thresher.report.advice import again, next_steps
from thresher.report.answers import answers, size_rows, speed_rows
from thresher.report.facts import facts, missing
from thresher.report.html import render
from thresher.report.quality import perplexity_ratio, quality_rows, task_rows

SPEED = {
    "tokens_per_second": {"dense": 20.0, "packed": 30.0},
    "layer_seconds": {"dense": {"q_proj": 0.002}, "packed": {"q_proj": 0.001}},
    "weight_bytes": {"dense": 200, "packed": 100},
    "moved_bytes": {"dense": 100, "packed": 40},
    "speedup": 1.5,
    "spread": [1.4, 1.6],
    "noisy": False,
    "dense_dtype": "bfloat16",
    "batch": 1,
    "threads": 2,
    "new_tokens": 32,
    "layouts": {"bitmask": 20},
    "date": "2026-11-29",
    "device": "cpu",
    "processor": "Some CPU",
}


def test_the_error_of_the_ratio_is_of_pairs(record):
    dense, differences = [1.0, 3.0, 5.0, 3.0], [0.8, 0.82, 0.81, 0.813]
    losses = [a + b for a, b in zip(dense, differences, strict=True)]
    record.evaluation |= {"dense_losses": dense, "pruned_losses": losses}
    ratio, error = perplexity_ratio(record.evaluation)
    assert ratio == 2.25
    assert error == pytest.approx(2.25 * statistics.stdev(differences) / 2)
    (row, *_) = quality_rows(record)
    # Apart, both are far less certain than their difference is.
    assert row == ["perplexity", "20 ± 16", "45 ± 37", f"2.25x ± {error:.2g}"]


@pytest.mark.parametrize("losses", [[], [2.0], [2.0, math.inf]])
def test_no_error_without_two_finite_losses(record, losses):
    record.evaluation |= {"dense_losses": losses, "pruned_losses": losses}
    assert perplexity_ratio(record.evaluation) == (2.25, None)
    assert ("error" in missing(record, "small")) == (len(losses) < 2)


def test_losses_of_one_model_alone_are_no_pairs(record):
    record.evaluation["pruned_losses"] = [3.0, 3.5]
    assert perplexity_ratio(record.evaluation) == (2.25, None)


def test_the_answers_are_of_the_pruned_model_beside_the_dense_one(record):
    good, smaller, faster = answers(record)
    assert (good.figure, good.detail, good.tone) == ("2.25x perplexity: costly", "20 → 45", "bad")
    assert (smaller.figure, smaller.tone) == ("0.688x on disk", "good")
    assert (faster.figure, faster.tone) == ("not measured", "")
    record.speed = SPEED
    assert answers(record)[2].detail == "20 → 30 tokens/s"
    assert answers(record)[2].tone == "good"
    record.speed = SPEED | {"noisy": True}
    assert "busy" in answers(record)[2].detail
    record.evaluation["pruned_perplexity"] = 24.0
    assert answers(record)[0].tone == "good"
    record.evaluation["pruned_perplexity"] = math.nan
    assert answers(record)[0].tone == "bad"


def test_rows_of_size_speed_and_tasks(record):
    assert len(size_rows(record)) == 2
    record.speed = SPEED
    assert [row[3] for row in size_rows(record)] == ["0.688x", "0.566x", "0.5x", "0.4x"]
    assert speed_rows(record) == [
        ["tokens/s", "20", "30", "1.5x (1.4 to 1.6)"],
        ["q_proj, ms per token", "2", "1", "2x"],
    ]
    record.tasks = {"pruned": {"arc": {"accuracy": 0.5}}, "dense": {"arc": {"accuracy": 0.75}}}
    assert task_rows(record) == [["arc", "accuracy", "0.75", "0.5", "-0.25"]]
    del record.tasks["dense"]
    assert task_rows(record) == [["arc", "accuracy", "-", "0.5", "-"]]


def test_a_costly_cut_is_healed_or_made_smaller(record):
    record.made = {"command": "thresher prune m --density 0.5 --pattern row --out 'a b' -q"}
    first, second, *rest = (step.command for step in next_steps(record, "small"))
    assert "heal small --minutes 30" in first
    assert second.endswith("prune m --pattern row -q --sparsity 0.3 --out small-0.3")
    assert any("bench small" in command for command in rest)
    record.evaluation["pruned_perplexity"] = 21.0
    record.speed, record.tasks = SPEED, {"pruned": {"arc": {}}}
    commands = [step.command.partition(" ")[2] for step in next_steps(record, "small")]
    assert [command.split()[-3] for command in commands][:1] != ["heal"]
    assert not any("bench" in command or "eval" in command for command in commands)


def test_nobody_is_sent_to_evaluate_the_text_of_a_model_that_writes_none(record):
    record.evaluation = {"no_text": True}
    first, second = next_steps(record, "small")
    assert first.command == "AutoModel.from_pretrained('small')"
    assert "export small small-dense" in second.command
    told = missing(record, "small")
    assert "AutoModel.from_pretrained('small')" in told["quality"]
    assert not any("--" in sentence for part, sentence in told.items() if part != "sizes")
    assert "writes no text" in render(record, "small")


def test_a_command_that_was_not_kept_is_put_together(record):
    assert again(record, "out", ["--exclude", "*.q"]).endswith(
        "prune models/tiny-llama --method wanda --sparsity 0.5 --exclude '*.q' --out out"
    )
    record.method = "recipe"
    assert again(record, "out", []) is None


def test_what_is_missing_is_said_with_the_command_that_measures_it():
    bare = PruneRecord("some model", "wanda", "Wanda()", "row", 0.5)
    told = missing(bare, "my folder")
    assert set(told) == {"quality", "samples", "tasks", "sizes", "speed"}
    assert "`thresher bench 'my folder' --dense 'some model' --save`" in told["speed"]
    bare.evaluation["no_samples"] = "the models do not fit into memory whole"
    assert (
        missing(bare, "a")["samples"] == "No sample text: the models do not fit into memory whole."
    )
    assert facts(bare)["date"] == "not recorded"
