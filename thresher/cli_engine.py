"""Commands that run models on the compiled engine: pack, generate, chat and serve."""

from __future__ import annotations

__all__ = ["COMMANDS"]

from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from .cli_options import COUNT, ENGINE_MODEL, FOLDER, TEXT, TEXT_HELP, with_json
from .core.errors import OptionError, ThresherError
from .core.output import check_free
from .core.terminal import done, manner, say, show

_BITS = click.option(
    "--bits",
    type=click.Choice(["4", "8"]),
    help="Round weights to so many bits.  [default: 16, or a GGUF file's own]",
)


def _drawing(command: Any) -> Any:
    """Add the options of how tokens are chosen."""
    options = (
        click.option(
            "--temperature",
            type=click.FloatRange(0),
            default=0.0,
            show_default=True,
            help="0 takes the likeliest token.",
        ),
        click.option("--top-k", type=COUNT, help="Draw from so many likeliest tokens."),
        click.option(
            "--top-p",
            type=click.FloatRange(0, 1, min_open=True),
            help="Draw from the fewest tokens that are together this likely.",
        ),
        click.option(
            "--min-p",
            type=click.FloatRange(0, 1),
            help="Draw from tokens this share as likely as the likeliest, at least.",
        ),
        click.option(
            "--repetition-penalty",
            type=click.FloatRange(0, min_open=True),
            default=1.0,
            show_default=True,
            help="Above 1, tokens that were there before are less likely.",
        ),
        click.option("--seed", type=click.IntRange(min=0), help="Of the draws."),
        click.option("--stop", multiple=True, help="Text to end before. Repeatable."),
        click.option(
            "--lookup",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Tokens to guess from the text so far. Changes the time alone.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("model", type=ENGINE_MODEL)
@click.option("--out", type=FOLDER, required=True, help="Folder to write.")
@_BITS
@click.option(
    "--text", "--calibration", type=TEXT, help=f"Calibrate --bits 4 on this data: {TEXT_HELP}"
)
@click.option(
    "--windows", type=COUNT, default=64, show_default=True, help="Calibration windows, at most."
)
@click.option("--length", type=COUNT, default=1024, show_default=True, help="Tokens per window.")
@with_json
def pack(
    model: str, out: Path, bits: str | None, text: Path | None, windows: int, length: int
) -> None:
    """Write MODEL, a folder or a GGUF file, as a folder that `generate` starts from at once."""
    check_free(out)  # before the work
    from .packing import pack_model

    pack_model(model, out, int(bits) if bits else None, text, windows, length)
    done(f"wrote {out}", model=model, out=out)


@click.command()
@click.argument("model", type=ENGINE_MODEL)
@click.argument("prompt")
@click.option("--tokens", type=COUNT, default=128, show_default=True, help="New ones, at most.")
@_BITS
@_drawing
@with_json
def generate(model: str, prompt: str, tokens: int, bits: str | None, **options: Any) -> None:
    """Write what follows PROMPT by MODEL as it comes, on the compiled engine.

    MODEL is a folder, dense, sparse or of `thresher pack`, or a GGUF file.
    """
    from .run.engine import Engine

    engine = Engine(model, int(bits) if bits else None)
    pieces = engine.stream(prompt, max_new_tokens=tokens, **options)
    if manner().json:
        show({"model": model, "prompt": prompt, "text": "".join(pieces)})
        return
    for piece in pieces:
        click.echo(piece, nl=False)
    click.echo()


@click.command()
@click.argument("model", type=ENGINE_MODEL)
@click.option("--system", help="What the model is told before.")
@click.option("--tokens", type=COUNT, help="Of an answer, at most.  [default: what fits]")
@_BITS
@_drawing
def chat(
    model: str, system: str | None, tokens: int | None, bits: str | None, **options: Any
) -> None:
    """Talk with MODEL, a folder or a GGUF file made for chats, on the compiled engine.

    Ctrl-C stops an answer, Ctrl-D ends the conversation.
    """
    from .run.engine import Engine
    from .run.engine.chat import Chat

    if tokens is not None:
        options["max_new_tokens"] = tokens
    conversation = Chat(Engine(model, int(bits) if bits else None), system, **options)
    while (text := _asked()) is not None:
        if text.strip():
            _tell(conversation.answer(text))


@click.command()
@click.argument("model", type=ENGINE_MODEL)
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0: all addresses.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option(
    "--api-key", envvar="THRESHER_API_KEY", show_envvar=True, help="Answer those who know it alone."
)
@click.option(
    "--parallel", type=COUNT, default=8, show_default=True, help="Texts under way at a time."
)
@click.option("--queue", type=COUNT, default=64, show_default=True, help="Requests that may wait.")
@_BITS
def serve(
    model: str,
    host: str,
    port: int,
    api_key: str | None,
    parallel: int,
    queue: int,
    bits: str | None,
) -> None:
    """Answer requests to MODEL, a folder or a GGUF file, by OpenAI's interface.

    Needs `pip install 'thresher[serve]'`. SIGTERM or Ctrl-C ends it once all answers are finished.
    """
    if api_key == "":
        raise OptionError("the API key is empty; leave it out to answer everybody")
    from .run.serve.server import bound
    from .run.serve.server import serve as run

    with bound(host, port) as held:  # before the model is loaded
        from .run.engine import Engine

        name = Path(model).resolve().name if Path(model).exists() else model
        engine = Engine(model, int(bits) if bits else None)
        level = "info" if manner().verbose else "warning"
        run(engine, name, held, parallel, queue, api_key, level, _say_where(name))


def _say_where(name: str) -> Callable[[str], None]:
    return lambda address: say(f"{name} answers at {address}/v1; Ctrl-C ends it")


def _asked() -> str | None:
    """Return the user's next line, None at the end of all."""
    try:
        return input("> ")
    except EOFError:
        click.echo()
        return None
    except KeyboardInterrupt:
        click.echo("\nCtrl-D ends the conversation")
        return ""


def _tell(pieces: Generator[str, None, None]) -> None:
    """Write an answer as it comes; Ctrl-C stops it, and what cannot be answered is said."""
    try:
        with closing(pieces):
            for piece in pieces:
                click.echo(piece, nl=False)
    except KeyboardInterrupt:
        pass
    except ThresherError as error:
        click.echo(f"Error: {error}", err=True, nl=False)
    click.echo()


COMMANDS = (pack, generate, chat, serve)
