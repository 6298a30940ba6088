"""Commands that look at models: eval, info, report, log, bench and lm-eval."""

from __future__ import annotations

__all__ = ["COMMANDS"]

from pathlib import Path

import click

from .cli_options import (
    COUNT,
    DTYPES,
    ENGINE_MODEL,
    FOLDER,
    LANGUAGE_MODEL,
    MODEL,
    MODEL_FOLDER,
    TEXT,
    TEXT_HELP,
    with_device,
    with_json,
)
from .core.terminal import done, say

_SAVE = click.option(
    "--save", is_flag=True, help="Keep the figures in MODEL's record, and write its report again."
)


@click.command(name="eval")
@click.argument("model", type=ENGINE_MODEL)
@click.option("--text", type=TEXT, help=TEXT_HELP)
@click.option(
    "--tasks",
    help="JSON lines of questions, each with a 'question', 'choices' and the index of the right "
    "choice as 'answer'; or names of lm-evaluation-harness's tasks, separated by commas.",
)
@click.option(
    "--dense",
    type=ENGINE_MODEL,
    help="The dense original: adds its figures and the distance from it.",
)
@click.option("--windows", type=COUNT, default=20, show_default=True, help="Windows, at most.")
@click.option("--length", type=COUNT, default=1024, show_default=True, help="Tokens per window.")
@click.option(
    "--precision", type=DTYPES, default="auto", show_default=True, help="Of forward passes."
)
@with_device
@_SAVE
@with_json
def eval_(
    model: str,
    text: Path | None,
    tasks: str | None,
    dense: str | None,
    windows: int,
    length: int,
    precision: str,
    device: str,
    save: bool,
) -> None:
    """Measure the perplexity of MODEL on a text, and its accuracy on multiple-choice questions.

    A folder of `thresher pack` and a GGUF file run in the engine, which reads texts alone.
    """
    if text is None and tasks is None:
        raise click.UsageError("pass --text, --tasks or both")
    from .evaluating import evaluate

    evaluate(model, text, tasks, dense, windows, length, precision, device, save)


@click.command()
@click.argument("model", type=MODEL)
@click.option("--layers", is_flag=True, help="One line per layer instead of one per kind.")
@click.option(
    "--yaml", is_flag=True, help="The recipe alone, for `thresher prune --recipe` to read."
)
@with_json
def info(model: str, layers: bool, yaml: bool) -> None:
    """Show density per layer, pattern, bytes, and the recipe that made MODEL."""
    from .workflow import show_info, show_recipe

    if yaml:
        show_recipe(model)
    else:
        show_info(model, layers)


@click.command()
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=MODEL_FOLDER)
@click.option(
    "--out",
    type=FOLDER,
    help="HTML file to write.  [default: FOLDER/report.html; of several, comparison.html]",
)
@with_json
def report(folders: tuple[str, ...], out: Path | None) -> None:
    """Write the HTML report of a pruned FOLDER again; of several, a comparison."""
    from .report.comparison import show_comparison, write_comparison
    from .report.html import write_report
    from .report.runs import compared_runs
    from .workflow import read_record

    records = {folder: read_record(Path(folder)) for folder in folders}
    if len(folders) == 1:
        target = out or Path(folders[0]) / "report.html"
        write_report(records[folders[0]], target, folders[0])
        done(f"wrote {target}", out=target)
    else:
        target = out or Path("comparison.html")
        found = compared_runs({short: records[each] for each, short in _short(folders).items()})
        write_comparison(found, target)
        show_comparison(found, target)
        say(f"wrote {target}")


def _short(folders: tuple[str, ...]) -> dict[str, str]:
    """Return the last part of each folder's name, or all of it where that names two."""
    names = {folder: Path(folder).resolve().name for folder in folders}
    unique = len(set(names.values())) == len(names)
    return names if unique else dict(zip(folders, folders, strict=True))


@click.command()
@click.argument("folder", type=MODEL_FOLDER)
@click.option(
    "--to",
    type=click.Choice(["tensorboard", "wandb", "mlflow"]),
    required=True,
    help="Where its runs go, its own environment variables say, such as WANDB_MODE.",
)
@click.option("--project", default="thresher", show_default=True, help="Or MLflow's experiment.")
@click.option(
    "--runs", type=FOLDER, default=Path("runs"), show_default=True, help="TensorBoard's folder."
)
@with_json
def log(folder: str, to: str, project: str, runs: Path) -> None:
    """Send the record of a pruned FOLDER to a tool that keeps track of experiments."""
    from .prune.tracking import figures, log_record, tracking
    from .workflow import read_record

    record = read_record(Path(folder))
    # TensorBoard makes one run of a folder's files.
    with tracking(to, project, runs / Path(folder).resolve().name) as trackers:
        log_record(record, *trackers)
    sent = figures(record)
    told = f"sent {len(sent)} figures of {folder} to {to}, project {project!r}"
    done(told, to=to, project=project, figures=sent)


@click.command()
@click.argument("model", type=ENGINE_MODEL)
@click.option(
    "--dense",
    type=LANGUAGE_MODEL,
    help="The dense original, timed in bfloat16 and float32; needed without --gguf.",
)
@click.option(
    "--gguf",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Have the engine decode beside llama.cpp, which runs this file.",
)
@click.option(
    "--batch",
    multiple=True,
    type=COUNT,
    default=(1, 16),
    show_default=True,
    help="Rows per product that layouts are chosen for. Repeatable.",
)
@click.option(
    "--tokens", type=COUNT, default=32, show_default=True, help="Tokens to generate per run."
)
@click.option(
    "--repeats",
    type=COUNT,
    default=3,
    show_default=True,
    help="Interleaved runs of each model.",
)
@click.option("--layers", is_flag=True, help="One line per layer instead of one per kind.")
@click.option("--busy", is_flag=True, help="Time also while others use the processor.")
@with_device
@_SAVE
@with_json
def bench(
    model: str,
    dense: str | None,
    gguf: Path | None,
    batch: tuple[int, ...],
    tokens: int,
    repeats: int,
    layers: bool,
    busy: bool,
    device: str,
    save: bool,
) -> None:
    """Pack sparse MODEL for this machine, and time it beside the dense original.

    A folder of `thresher pack` decodes in the engine, beside the dense model in as many bits. With
    --gguf, MODEL and FILE decode and read in the engine, beside FILE in llama.cpp (by
    llama-cpp-python, where that is installed) and DENSE in transformers.
    """
    if gguf is not None and save:
        raise click.UsageError("--save keeps figures of --dense alone; leave --gguf out")
    if gguf is None and dense is None:
        raise click.UsageError("Missing option '--dense', or '--gguf'")
    if gguf is not None:
        from .workflow import bench_gguf

        bench_gguf(model, gguf, dense, tokens, repeats, busy)
        return
    from .workflow import bench_folder

    # Given, or it was refused above.
    bench_folder(model, str(dense), batch, tokens, repeats, layers, device, save, busy)


@click.command(name="lm-eval", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lm_eval(arguments: tuple[str, ...]) -> None:
    """Run the command of lm-evaluation-harness, which knows sparse folders as --model thresher.

    ARGUMENTS are its own, such as run --model thresher --model_args pretrained=small --tasks piqa.
    """
    from .run.harness import run_harness

    run_harness(arguments)


COMMANDS = (eval_, info, report, log, bench, lm_eval)
