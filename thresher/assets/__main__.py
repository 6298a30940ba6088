"""``python -m thresher.assets smollm2`` fetches a model and prints its folder."""

import click

from .models import minilm, smollm2

_FOLDERS = {"smollm2": smollm2, "minilm": minilm}


@click.command()
@click.argument("name", type=click.Choice(sorted(_FOLDERS)))
def main(name: str) -> None:
    """Fetch model NAME into the cache and print its folder."""
    click.echo(_FOLDERS[name]())


main()
