"""Commands about the catalogue: methods and evidence."""

from __future__ import annotations

__all__ = ["COMMANDS"]

from pathlib import Path

import click

from .cli_options import COUNT, FOLDER, with_json


@click.command()
@click.argument("name", required=False)
@click.option("--area", help="Those of one area alone, such as prune or linear.")
@with_json
def methods(name: str | None, area: str | None) -> None:
    """List the catalogue, or show the card, usage and evidence of NAME."""
    from .report.methods import describe, listing

    if name and area:
        raise click.UsageError("name a method or an --area, not both")
    if name:
        describe(name)
    else:
        listing(area)


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every experiment there is.")
@click.option("--scale", default=1.0, show_default=True, help="Size of the experiment.")
@click.option("--seeds", type=COUNT, help="How many seeds.")
@click.option("--out", type=FOLDER, default=Path("evidence-results"), show_default=True)
@with_json
def evidence(
    names: tuple[str, ...], everything: bool, scale: float, seeds: int | None, out: Path
) -> None:
    """Rerun the experiments behind the claims of methods."""
    if bool(names) == everything:
        raise click.UsageError("name methods, or pass --all")
    from .report.methods import run_evidence

    run_evidence(names, scale, seeds, out)


COMMANDS = (methods, evidence)
