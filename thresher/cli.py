"""The ``thresher`` command. Heavy modules are imported inside commands, so help is quick."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from .core.errors import ThresherError, unknown
from .core.extras import naming_the_extra
from .core.machine import return_freed_memory

_FOLDER = click.Path(path_type=Path)
_COUNT = click.IntRange(min=1)
_DENSITY = click.FloatRange(0, 1, min_open=True)
_DTYPES = click.Choice(["auto", "bfloat16", "float16", "float32"])
#: What is read as text.
_TEXT = (
    "UTF-8 text file, JSON lines with 'text' or with chats as 'messages', or a data set's folder "
    "that save_to_disk wrote."
)
_DEVICE = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
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
        click.option("--top-k", type=_COUNT, help="Draw from so many likeliest tokens."),
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


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Note each Ctrl-C, as compiled code may report one as an error of its own.

    safetensors, interrupted while it reads a tensor, raises ``ValueError``.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    # Whoever ignores the signal, or runs the command off the main thread, keeps it so.
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _own_words() -> Iterator[None]:
    """Show our own warnings, a line each, and none of other libraries, nor their bars.

    Whoever asks Python for warnings, or transformers for its messages, gets them.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", module=r"thresher(\.|$)")
        warnings.showwarning = lambda message, *_: click.echo(f"warning: {message}", err=True)
        yield


class _Command(click.Group):
    """Turns errors about the user's input into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        return_freed_memory()
        with _interruptions() as interruptions:
            try:
                with naming_the_extra(), _own_words():
                    return super().invoke(ctx)
            except (Exception, KeyboardInterrupt) as error:
                if interruptions or isinstance(error, KeyboardInterrupt):
                    click.echo(
                        "\ninterrupted; the same command again goes on where it stopped", err=True
                    )
                    sys.exit(130)
                if isinstance(error, ThresherError):
                    raise click.ClickException(str(error)) from error
                raise


class _NameOption(click.Option):
    """An option that names a method or a part, and is called as that kind is.

    Its help lists the names, and a wrong one is refused before torch is imported. Both are read
    off the index, which tells of what this package brings.
    """

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        self.help = self.help or ", ".join(self._spellings())
        return super().get_help_record(ctx)

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        text = super().process_value(ctx, value)
        return self.checked(ctx, text) if isinstance(text, str) else text

    def checked(self, ctx: click.Context, text: str) -> str:
        """Return a name that is known, or that may be elsewhere."""
        known = self._spellings()
        wrong = text.strip().lower().replace("_", "-") not in known
        if wrong and not self._may_be_elsewhere(ctx, text):
            raise unknown(str(self.name), text, known)
        return text

    def _may_be_elsewhere(self, ctx: click.Context, text: str) -> bool:
        """Return whether only the parts themselves can tell if `text` names one."""
        from importlib.metadata import entry_points

        numbers = any(letter.isdigit() for letter in text)
        plugins = ctx.find_root().params["plugin"] or entry_points(group="thresher.methods")
        return numbers or bool(plugins)

    def _spellings(self) -> list[str]:
        from .core.index import index

        if self.name == "method":
            return list(index()["methods"])
        return [text for texts in index()["parts"][self.name].values() for text in texts]


class _NamesOption(_NameOption):
    """An option that takes several such names, with commas between them."""

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        text = click.Option.process_value(self, ctx, value)
        return [self.checked(ctx, name.strip()) for name in _between_commas(text)]


def _between_commas(text: Any) -> list[str]:
    return text.split(",") if isinstance(text, str) and text.strip() else []


def _densities(ctx: click.Context, option: click.Parameter, text: str | None) -> list[float]:
    density: click.ParamType = _DENSITY
    return [density.convert(each, option, ctx) for each in _between_commas(text)]


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
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
@click.argument("model")
@click.option(
    "--method",
    cls=_NameOption,
    default="sparsegpt",
    show_default=True,
    help="See `thresher methods`.",
)
@click.option("--density", type=_DENSITY, help="Share of weights to keep.")
@click.option("--pattern", cls=_NameOption)
@click.option("--budget", cls=_NameOption)
@click.option("--update", cls=_NameOption)
@click.option("--tokens", cls=_NameOption)
@click.option(
    "--stages/--no-stages",
    default=None,
    help="Prune a block group by group, each calibrated after the last.  [default: the method's]",
)
@click.option("--calibration", type=_FOLDER, help=f"{_TEXT}  [default: Python's documentation]")
@click.option(
    "--windows", type=_COUNT, default=64, show_default=True, help="Calibration windows, at most."
)
@click.option("--length", type=_COUNT, default=1024, show_default=True, help="Tokens per window.")
@click.option("--out", type=_FOLDER, required=True, help="Folder to write.")
@click.option("--dtype", type=_DTYPES, default="auto", show_default=True, help="Of the weights.")
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
    "--precision", type=_DTYPES, default="auto", show_default=True, help="Of forward passes."
)
@_DEVICE
@click.option("--spill", is_flag=True, help="Keep hidden states on disk, not in memory.")
@click.option("--overwrite", is_flag=True, help="Replace OUT, or an unfinished other run.")
@click.option("--text", type=_FOLDER, help="Evaluate on this data.  [default: held-out text]")
@click.option("--evaluate/--no-evaluate", default=True, show_default=True)
@click.option("--curve", is_flag=True, help="Also measure perplexity at 10-60 % removed.")
def prune(model: str, **options: Any) -> None:
    """Prune MODEL, a Hugging Face folder or hub name, into a folder with a report.

    A run that was stopped goes on from its last finished block when the same command is
    given again. `torchrun --nproc-per-node 2 -m thresher prune ...` shares the calibration windows
    out over processes.
    """
    from .shrinking import job_for

    job_for(model, **options).run()


@main.command()
@click.argument("model", metavar="FOLDER")
@click.option("--minutes", type=float, default=30.0, show_default=True, help="Time to take.")
@click.option("--teacher", help="The dense original.  [default: the one that FOLDER names]")
@click.option("--text", type=_FOLDER, help=f"{_TEXT}  [default: Python's documentation]")
@click.option("--out", type=_FOLDER, help="Folder to write.  [default: FOLDER-healed]")
@click.option(
    "--windows", type=_COUNT, default=1024, show_default=True, help="Windows of text, at most."
)
@click.option("--length", type=_COUNT, default=512, show_default=True, help="Tokens per window.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of windows.")
@click.option("--precision", type=_DTYPES, default="auto", show_default=True, help="Of passes.")
@_DEVICE
@click.option("--overwrite", is_flag=True, help="Replace OUT, or an unfinished other run.")
def heal(model: str, **options: Any) -> None:
    """Recover what pruning cost: train sparse FOLDER to predict what the dense model does.

    Zeros stay where they are. The result is never worse than FOLDER on held-out windows of the
    text. A run that was stopped goes on when the same command is given again; `torchrun
    --nproc-per-node 2 -m thresher heal ...` shares windows out over processes.
    """
    from .healing import heal_command

    heal_command(model, **options)


@main.command()
@click.argument("model")
@click.option("--methods", "method", cls=_NamesOption, required=True, help="Such as best,wanda.")
@click.option("--density", callback=_densities, help="Shares of weights to keep, such as 0.5,0.7.")
@click.option("--pattern", cls=_NamesOption, help="Patterns to compare besides, such as 2:4.")
@click.option("--heal", type=float, help="Minutes to heal every pruned model for.")
@click.option("--tasks", help="Questions or tasks to measure accuracy on, see `thresher eval`.")
@click.option("--calibration", type=_FOLDER, help=f"{_TEXT}  [default: Python's documentation]")
@click.option(
    "--other-text",
    type=_FOLDER,
    help="Data of another genre, to evaluate on.  [default: a book, if fetched before]",
)
@click.option(
    "--windows", type=_COUNT, default=64, show_default=True, help="Calibration windows, at most."
)
@click.option("--length", type=_COUNT, default=1024, show_default=True, help="Tokens per window.")
@click.option("--out", type=_FOLDER, help="Folder to write.  [default: MODEL-comparison]")
@click.option(
    "--parallel", type=_COUNT, default=1, show_default=True, help="Models at a time, through Ray."
)
def compare(model: str, method: list[str], **options: Any) -> None:
    """Prune MODEL by several METHODS, and measure each result beside the dense model.

    Writes one table, one report and the models. A comparison that was stopped goes on when the same
    command is given again; with other methods or densities the table grows.
    """
    from .comparing import CompareJob
    from .report.comparison import show_comparison

    job = CompareJob(model, method, **options)
    show_comparison(job.run())
    click.echo(f"wrote {job.out} and {job.out / 'report.html'}")


@main.command(hidden=True)
@click.argument("work", type=_FOLDER)
@click.argument("name")
@click.argument("step", type=click.Choice(["make", "time"]))
def compare_cell(work: Path, name: str, step: str) -> None:
    """Do one step of a comparison, in a process that ends with the one that started it."""
    from .comparing_processes import end_with_parent

    end_with_parent()
    from .comparing_cell import run_cell

    run_cell(work, name, step)


@main.command(name="eval")
@click.argument("model")
@click.option("--text", type=_FOLDER, help=_TEXT)
@click.option(
    "--tasks",
    help="JSON lines of questions, each with a 'question', 'choices' and the index of the right "
    "choice as 'answer'; or names of lm-evaluation-harness's tasks, separated by commas.",
)
@click.option("--dense", help="The dense original: adds its figures and the distance from it.")
@click.option("--windows", type=_COUNT, default=20, show_default=True, help="Windows, at most.")
@click.option("--length", type=_COUNT, default=1024, show_default=True, help="Tokens per window.")
@click.option(
    "--precision", type=_DTYPES, default="auto", show_default=True, help="Of forward passes."
)
@_DEVICE
def evaluate(
    model: str,
    text: Path | None,
    tasks: str | None,
    dense: str | None,
    windows: int,
    length: int,
    precision: str,
    device: str,
) -> None:
    """Measure the perplexity of MODEL on a text, and its accuracy on multiple-choice questions."""
    if text is None and tasks is None:
        raise click.UsageError("pass --text, --tasks or both")
    from .workflow import evaluate_folder

    evaluate_folder(model, text, tasks, dense, windows, length, precision, device)


@main.command()
@click.argument("model")
@click.option("--layers", is_flag=True, help="One line per layer instead of one per kind.")
def info(model: str, layers: bool) -> None:
    """Show density per layer, pattern, bytes, and the recipe that made MODEL."""
    from .workflow import show_info

    show_info(model, layers)


@main.command()
@click.argument("folder", type=_FOLDER)
@click.option("--out", type=_FOLDER, help="HTML file to write.  [default: FOLDER/report.html]")
def report(folder: Path, out: Path | None) -> None:
    """Write the HTML report of a pruned FOLDER again."""
    from .report.html import write_report
    from .workflow import read_record

    target = out or folder / "report.html"
    write_report(read_record(folder), target)
    click.echo(f"wrote {target}")


@main.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def methods(name: str | None, as_json: bool) -> None:
    """List the catalogue, or show the card, usage and evidence of NAME."""
    from .report.methods import describe, listing, method_data

    if as_json:
        click.echo(json.dumps(method_data(name), indent=2))
    elif name:
        describe(name)
    else:
        listing()


@main.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every experiment there is.")
@click.option("--scale", default=1.0, show_default=True, help="Size of the experiment.")
@click.option("--seeds", type=_COUNT, help="How many seeds.")
@click.option("--out", type=_FOLDER, default=Path("evidence-results"), show_default=True)
def evidence(
    names: tuple[str, ...], everything: bool, scale: float, seeds: int | None, out: Path
) -> None:
    """Rerun the experiments behind the claims of methods."""
    if bool(names) == everything:
        raise click.UsageError("name methods, or pass --all")
    from .report.methods import run_evidence

    run_evidence(names, scale, seeds, out)


@main.command()
@click.argument("model", type=_FOLDER)
@click.argument("out", type=_FOLDER)
def export(model: Path, out: Path) -> None:
    """Write sparse MODEL as the dense folder OUT, which loads without Thresher."""
    from .run.files.export import export as write

    write(model, out)
    click.echo(f"wrote {out}")


@main.command()
@click.argument("model")
@click.option("--out", type=_FOLDER, required=True, help="Folder to write.")
@_BITS
def pack(model: str, out: Path, bits: str | None) -> None:
    """Write MODEL, a folder or a GGUF file, as a folder that `generate` starts from at once."""
    from .core.output import check_free
    from .run.engine import Engine

    check_free(out)  # before the work
    Engine(model, int(bits) if bits else None).save(out)
    click.echo(f"wrote {out}")


@main.command()
@click.argument("model")
@click.argument("prompt")
@click.option("--tokens", type=_COUNT, default=128, show_default=True, help="New ones, at most.")
@_BITS
@_drawing
def generate(model: str, prompt: str, tokens: int, bits: str | None, **options: Any) -> None:
    """Write what follows PROMPT by MODEL as it comes, on the compiled engine.

    MODEL is a folder, dense, sparse or of `thresher pack`, or a GGUF file.
    """
    from .run.engine import Engine

    engine = Engine(model, int(bits) if bits else None)
    for piece in engine.stream(prompt, max_new_tokens=tokens, **options):
        click.echo(piece, nl=False)
    click.echo()


@main.command()
@click.argument("model")
@click.option("--system", help="What the model is told before.")
@click.option("--tokens", type=_COUNT, help="Of an answer, at most.  [default: what fits]")
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


@main.command()
@click.argument("model")
@click.option("--dense", required=True, help="The dense original, timed in bfloat16 and float32.")
@click.option(
    "--batch",
    multiple=True,
    type=_COUNT,
    default=(1, 16),
    show_default=True,
    help="Rows per product that layouts are chosen for. Repeatable.",
)
@click.option(
    "--tokens", type=_COUNT, default=32, show_default=True, help="Tokens to generate per run."
)
@click.option(
    "--repeats",
    type=_COUNT,
    default=3,
    show_default=True,
    help="Interleaved runs of each model.",
)
@click.option("--layers", is_flag=True, help="One line per layer instead of one per kind.")
@_DEVICE
def bench(
    model: str,
    dense: str,
    batch: tuple[int, ...],
    tokens: int,
    repeats: int,
    layers: bool,
    device: str,
) -> None:
    """Pack sparse MODEL for this machine, and time it beside the dense original."""
    from .workflow import bench_folder

    bench_folder(model, dense, batch, tokens, repeats, layers, device)
