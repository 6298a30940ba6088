"""The ``thresher`` command. Heavy modules are imported inside commands, so help is quick."""

from __future__ import annotations

__all__ = ["main"]

from pathlib import Path
from typing import Any

import click

from . import cli_activate, cli_catalogue, cli_engine, cli_measuring
from .cli_group import Commands
from .cli_options import (
    AUTO,
    CHOSEN_SPARSITY,
    COUNT,
    DENSITIES,
    DENSITY,
    DTYPES,
    FOLDER,
    LANGUAGE_MODEL,
    MODEL_FOLDER,
    SPARSITIES,
    TEXT,
    TEXT_HELP,
    NameOption,
    NamesOption,
    with_device,
    with_json,
)
from .core.errors import OptionError
from .core.index import index
from .core.output import check_apart, check_growing, check_replaceable
from .core.paths import local_model
from .core.terminal import done, manner, say


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="thresher")
@click.option(
    "--plugin",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Python file with methods of your own; it is executed. Repeatable.",
)
def main(plugin: tuple[Path, ...]) -> None:
    """Choose what to keep, keep the model good, make the zeros pay."""
    if plugin:
        from .core.card import load_plugin

        for file in plugin:
            load_plugin(file)


@main.command()
@click.argument("model", type=LANGUAGE_MODEL)
@click.option(
    "--method",
    cls=NameOption,
    default="sparsegpt",
    show_default=True,
    help="See `thresher methods`.",
)
@click.option(
    "--recipe",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file with a recipe, in place of --method; `thresher info --yaml` writes such.",
)
@click.option(
    "--sparsity",
    type=CHOSEN_SPARSITY,
    help="Share of weights to remove, such as 0.5; auto: the most that leaves perplexity within "
    "1.2 times the dense one, of 20 to 50 %.",
)
@click.option("--density", type=DENSITY, help="Share of weights to keep, instead.")
@click.option("--pattern", cls=NameOption)
@click.option("--budget", cls=NameOption)
@click.option("--update", cls=NameOption)
@click.option("--tokens", cls=NameOption)
@click.option(
    "--stages/--no-stages",
    default=None,
    help="Prune a block group by group, each calibrated after the last.  [default: the method's]",
)
@click.option("--calibration", type=TEXT, help=f"{TEXT_HELP}  [default: Python's documentation]")
@click.option(
    "--windows", type=COUNT, default=64, show_default=True, help="Calibration windows, at most."
)
@click.option("--length", type=COUNT, default=1024, show_default=True, help="Tokens per window.")
@click.option("--out", type=FOLDER, required=True, help="Folder to write.")
@click.option("--dtype", type=DTYPES, default="auto", show_default=True, help="Of the weights.")
@click.option("--include", multiple=True, help="Layer names to prune although kept by default.")
@click.option("--exclude", multiple=True, help="Layer names to leave dense, such as '*.v_proj'.")
@click.option(
    "--unseen",
    type=click.Choice(["magnitude", "dense"]),
    default="magnitude",
    show_default=True,
    help="How to treat layers that no calibration text reaches, such as idle experts.",
)
@click.option(
    "--precision", type=DTYPES, default="auto", show_default=True, help="Of forward passes."
)
@with_device
@click.option("--spill", is_flag=True, help="Keep hidden states on disk, not in memory.")
@click.option("--overwrite", is_flag=True, help="Replace OUT, or an unfinished other run.")
@click.option("--text", type=TEXT, help="Evaluate on this data.  [default: held-out text]")
@click.option("--evaluate/--no-evaluate", default=True, show_default=True)
@click.option("--revision", help="Branch, tag or commit of a MODEL on the hub.")
@click.option("--push-to-hub", metavar="OWNER/NAME", help="Send OUT there, with its card.")
@click.option("--curve", is_flag=True, help="Also measure perplexity at 20-50 % removed.")
@with_json
def prune(model: str, density: float | None, sparsity: float | str | None, **options: Any) -> None:
    """Prune MODEL, a Hugging Face folder or hub name, into a folder with a report.

    A run that was stopped goes on from its last finished block when the same command is
    given again. `torchrun --nproc-per-node 2 -m thresher prune ...` shares the calibration windows
    out over processes.
    """
    from .core.options import density_of

    if not isinstance(sparsity, str):
        options["density"] = density_of(density, sparsity)
    elif density is None:
        options["density"] = sparsity
    else:
        raise OptionError(f"--sparsity {AUTO} finds the density; leave --density {density} away")
    recipe = options.pop("recipe")
    _check_before_torch(model, recipe=recipe, **options)
    from .shrinking import job_for

    if recipe is not None:
        from .prune.written import Written

        try:
            text = recipe.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise OptionError(f"--recipe {recipe} is no text in UTF-8: {error.reason}") from error
        options["method"] = Written.from_yaml(text)
    job_for(model, **options).run()


def _check_before_torch(
    model: str, method: str, out: Path, recipe: Path | None, **options: Any
) -> None:
    """Raise for what can be told at once; a method of the user's own may have its own density."""
    given = options["density"], options["pattern"]
    if recipe is not None:
        source = click.get_current_context().get_parameter_source("method")
        if source is not click.core.ParameterSource.DEFAULT:
            raise OptionError(f"--recipe {recipe} and --method {method}: give one of the two")
    elif given == (None, None) and method in index()["methods"]:
        raise OptionError(
            "say how much to remove: --sparsity 0.5, or a pattern such as --pattern 2:4"
        )
    folder = local_model(model)
    if folder is not None:
        check_apart(folder, out)
    check_replaceable(out)


@main.command()
@click.argument("model", metavar="FOLDER", type=LANGUAGE_MODEL)
@click.option("--minutes", type=float, default=30.0, show_default=True, help="Time to take.")
@click.option(
    "--teacher",
    type=LANGUAGE_MODEL,
    help="The dense original.  [default: the one that FOLDER names]",
)
@click.option("--text", type=TEXT, help=f"{TEXT_HELP}  [default: Python's documentation]")
@click.option("--out", type=FOLDER, help="Folder to write.  [default: FOLDER-healed]")
@click.option(
    "--windows", type=COUNT, default=1024, show_default=True, help="Windows of text, at most."
)
@click.option("--length", type=COUNT, default=512, show_default=True, help="Tokens per window.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of windows.")
@click.option("--precision", type=DTYPES, default="auto", show_default=True, help="Of passes.")
@with_device
@click.option("--overwrite", is_flag=True, help="Replace OUT, or an unfinished other run.")
@with_json
def heal(model: str, **options: Any) -> None:
    """Recover what pruning cost: train sparse FOLDER to predict what the dense model does.

    Zeros stay where they are. The result is never worse than FOLDER on held-out windows of the
    text. A run that was stopped goes on when the same command is given again; `torchrun
    --nproc-per-node 2 -m thresher heal ...` shares windows out over processes.
    """
    if options["out"] is not None:
        check_replaceable(options["out"])
    from .healing import heal_command

    heal_command(model, **options)


@main.command()
@click.argument("model", type=LANGUAGE_MODEL)
@click.option("--methods", "method", cls=NamesOption, required=True, help="Such as best,wanda.")
@click.option(
    "--sparsity", type=SPARSITIES, default="", help="Shares of weights to remove, such as 0.3,0.5."
)
@click.option("--density", type=DENSITIES, default="", help="Shares to keep, instead or besides.")
@click.option("--pattern", cls=NamesOption, help="Patterns to compare besides, such as 2:4.")
@click.option("--heal", type=float, help="Minutes to heal every pruned model for.")
@click.option("--tasks", help="Questions or tasks to measure accuracy on, see `thresher eval`.")
@click.option("--calibration", type=TEXT, help=f"{TEXT_HELP}  [default: Python's documentation]")
@click.option(
    "--other-text",
    type=TEXT,
    help="Data of another genre, to evaluate on.  [default: a book, if fetched before]",
)
@click.option(
    "--windows", type=COUNT, default=64, show_default=True, help="Calibration windows, at most."
)
@click.option("--length", type=COUNT, default=1024, show_default=True, help="Tokens per window.")
@click.option("--out", type=FOLDER, help="Folder to write.  [default: MODEL-comparison]")
@click.option(
    "--parallel", type=COUNT, default=1, show_default=True, help="Models at a time, through Ray."
)
@with_json
def compare(model: str, method: list[str], sparsity: list[float], **options: Any) -> None:
    """Prune MODEL by several METHODS, and measure each result beside the dense model.

    Writes one table, one report and the models. A comparison that was stopped goes on when the same
    command is given again; with other methods or densities the table grows.
    """
    from .core.options import density_of

    options["density"] += [density_of(None, each) for each in sparsity]
    if options["out"] is not None:
        folder = local_model(model)
        if folder is not None:
            check_apart(folder, options["out"])
        check_growing(options["out"])
    from .comparing import CompareJob
    from .report.comparison import show_comparison

    job = CompareJob(model, method, progress=not manner().quiet, **options)
    show_comparison(job.run(), job.out)
    say(f"wrote {job.out} and {job.out / 'report.html'}")


@main.command(hidden=True)
@click.argument("work", type=FOLDER)
@click.argument("name")
@click.argument("step", type=click.Choice(["make", "time"]))
def compare_cell(work: Path, name: str, step: str) -> None:
    """Do one step of a comparison, in a process that ends with the one that started it."""
    from .comparing_processes import end_with_parent

    end_with_parent()
    from .comparing_cell import run_cell

    run_cell(work, name, step)


@main.command()
@click.argument("model", type=MODEL_FOLDER)
@click.argument("out", type=FOLDER)
@click.option(
    "--type",
    "kind",
    type=click.Choice(["f16", "bf16", "q8_0", "q4_0", "q4_1"]),
    help="Of a GGUF file's matrices.  [default: f16]",
)
@click.option(
    "--text",
    "--calibration",
    type=TEXT,
    help=f"Have the codes of --type q4_1 calibrated on this data: {TEXT_HELP}",
)
@click.option(
    "--windows", type=COUNT, default=64, show_default=True, help="Calibration windows, at most."
)
@click.option("--length", type=COUNT, default=1024, show_default=True, help="Tokens per window.")
@click.option("--onnx", is_flag=True, help="Write model.onnx, in float32, in the folder OUT.")
@with_json
def export(
    model: str,
    out: Path,
    kind: str | None,
    text: Path | None,
    windows: int,
    length: int,
    onnx: bool,
) -> None:
    """Write MODEL, dense or sparse, as the dense folder OUT, which loads without Thresher.

    With a name that ends in .gguf, OUT is a file for llama.cpp and what is built on it.
    """
    if text is not None:
        if onnx or out.suffix.lower() != ".gguf" or kind != "q4_1":
            raise OptionError(
                "--text calibrates GGUF files of --type q4_1, the type whose codes it can choose; "
                "add it, or leave --text out"
            )
        from .packing import export_rounded

        export_rounded(model, out, text, windows, length)
    elif onnx:
        if kind is not None or out.suffix.lower() == ".gguf":
            raise OptionError("--onnx writes a folder, and no GGUF file; leave one of them away")
        from .workflow import export_folder_as_onnx

        export_folder_as_onnx(model, out)
    elif out.suffix.lower() == ".onnx":
        raise OptionError(
            f"without --onnx a folder is written, and {str(out)!r} is named as an ONNX file; add "
            "--onnx, which writes model.onnx into the folder that you name"
        )
    elif out.suffix.lower() == ".gguf":
        from .run.engine.gguf.write import export_gguf

        export_gguf(model, out, kind or "f16")
    elif kind is not None:
        raise OptionError(f"--type is of GGUF files, and {str(out)!r} does not end in .gguf")
    else:
        from .run.files.export import export as write

        write(model, out)
    done(f"wrote {out}", model=model, out=out)


for _command in (
    *cli_activate.COMMANDS,
    *cli_measuring.COMMANDS,
    *cli_engine.COMMANDS,
    *cli_catalogue.COMMANDS,
):
    main.add_command(_command)
