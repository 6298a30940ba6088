"""How the ``thresher`` command runs its commands: errors in a line, warnings, interruptions."""

from __future__ import annotations

__all__ = ["Commands"]

import logging
import os
import shlex
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from .core.errors import ThresherError
from .core.extras import naming_the_extra
from .core.machine import return_freed_memory
from .core.terminal import manner, own_manner

#: What click raises, from 8.2 on, to show help to a command without arguments.
_ASKS_FOR_HELP: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())
#: Key of a context's command as it was typed.
_TYPED = "thresher.typed"


def _quiet(ctx: click.Context, option: click.Parameter, given: bool) -> None:
    manner().quiet |= given


def _verbose(ctx: click.Context, option: click.Parameter, given: bool) -> None:
    if given and not manner().verbose:
        manner().verbose = True
        warnings.simplefilter("default")
        logging.basicConfig(format="%(name)s: %(message)s")
        logging.getLogger("thresher").setLevel(logging.INFO)


def _flag(*names: str, **options: Any) -> click.Option:
    return click.Option(names, is_flag=True, expose_value=False, **options)


class Commands(click.Group):
    """Turns what is wrong with the user's input into a line or two; gives commands -q and -v."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, which may be told to say less or more."""
        cmd.params += [
            _flag("-q", "--quiet", callback=_quiet, help="Say nothing but results and errors."),
            _flag("-v", "--verbose", callback=_verbose, help="Show logs, and errors in full."),
        ]
        super().add_command(cmd, name)

    def make_context(
        self, info_name: str | None, args: list[str], *given: Any, **extra: Any
    ) -> click.Context:
        """Parse the options before the command's name."""
        typed = shlex.join(["thresher", *args])
        with _brief_usage():
            context = super().make_context(info_name, args, *given, **extra)
        context.meta[_TYPED] = typed
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        return_freed_memory()
        with _interruptions() as interruptions:
            try:
                with own_manner() as own, _own_words():
                    own.typed = ctx.meta[_TYPED]
                    return self._invoke(ctx)
            except (Exception, KeyboardInterrupt) as error:
                if interruptions or isinstance(error, KeyboardInterrupt):
                    click.echo(
                        "\ninterrupted; the same command again goes on where it stopped", err=True
                    )
                    sys.exit(130)
                raise

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            with naming_the_extra(), _brief_usage():
                return super().invoke(ctx)
        except ThresherError as error:
            if manner().verbose:
                traceback.print_exc()
            # Words of other libraries may come in several lines.
            raise click.ClickException(" ".join(str(error).split())) from error


@contextmanager
def _brief_usage() -> Iterator[None]:
    """Have wrong usage say what is wrong, and what shows the rest, instead of a screen."""
    try:
        yield
    except _ASKS_FOR_HELP:
        raise
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "thresher"
        # Choices of an option that is missing come a line each.
        told = " ".join(error.format_message().split())
        raise _WrongUsage(f"{told}\nTry '{path} --help'.") from error


class _WrongUsage(click.ClickException):
    exit_code = 2


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
