"""The command that makes activations sparse: activate."""

from __future__ import annotations

__all__ = ["COMMANDS"]

from pathlib import Path
from typing import Any

import click

from .cli_options import (
    COUNT,
    DTYPES,
    FOLDER,
    LANGUAGE_MODEL,
    SPARSITY,
    TEXT,
    TEXT_HELP,
    NameOption,
    with_device,
    with_json,
)
from .core.errors import OptionError
from .core.output import check_apart, check_replaceable
from .core.paths import local_model


class _MethodOption(NameOption):
    """An option that names a method which makes activations sparse."""

    verb, does = "activate", "make activations sparse"


@click.command()
@click.argument("model", type=LANGUAGE_MODEL)
@click.option(
    "--method",
    cls=_MethodOption,
    default="teal",
    show_default=True,
    help="See `thresher methods --area activate`.",
)
@click.option("--sparsity", type=SPARSITY, help="Share of weights that a token need not read.")
@click.option("--levels", cls=NameOption)
@click.option("--rule", cls=NameOption)
@click.option("--calibration", type=TEXT, help=f"{TEXT_HELP}  [default: Python's documentation]")
@click.option(
    "--windows", type=COUNT, default=16, show_default=True, help="Calibration windows, at most."
)
@click.option("--length", type=COUNT, default=512, show_default=True, help="Tokens per window.")
@click.option("--out", type=FOLDER, required=True, help="Folder to write.")
@click.option("--include", multiple=True, help="Layer names to cover although dense by default.")
@click.option("--exclude", multiple=True, help="Layer names to leave dense, such as '*.v_proj'.")
@click.option(
    "--precision", type=DTYPES, default="auto", show_default=True, help="Of forward passes."
)
@with_device
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
@click.option("--text", type=TEXT, help="Evaluate on this data.  [default: held-out text]")
@click.option("--evaluate/--no-evaluate", default=True, show_default=True)
@with_json
def activate(model: str, method: str, sparsity: float | None, out: Path, **options: Any) -> None:
    """Calibrate which activations of MODEL a token can do without, and write a folder with them.

    No weight changes: the folder is MODEL's, with a file of thresholds beside the weights, which
    `from_pretrained` takes up once thresher is imported. Without it the folder is the dense model.
    """
    if sparsity is None:
        raise OptionError("say how much to drop: --sparsity 0.5")
    folder = local_model(model)
    if folder is not None:
        check_apart(folder, out)
    check_replaceable(out)
    from .activating import ActivateJob

    ActivateJob(
        model, method=method, sparsity=sparsity, out=out, dtype="auto", curve=False, **options
    ).run()


COMMANDS = (activate,)
