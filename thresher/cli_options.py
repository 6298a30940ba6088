"""Options that several commands have, checked before torch is imported."""

from __future__ import annotations

__all__ = [
    "AUTO",
    "CHOSEN_SPARSITY",
    "COUNT",
    "DENSITIES",
    "DENSITY",
    "DTYPES",
    "ENGINE_MODEL",
    "FOLDER",
    "LANGUAGE_MODEL",
    "MODEL",
    "MODEL_FOLDER",
    "SPARSITIES",
    "SPARSITY",
    "TEXT",
    "TEXT_HELP",
    "NameOption",
    "NamesOption",
    "with_device",
    "with_json",
]

import re
from pathlib import Path
from typing import Any

import click

from .core.card import VERBS, names_in_papers
from .core.errors import CheckpointError, OptionError, unknown
from .core.index import index
from .core.paths import check_model_folder, check_text, local_model, missing
from .core.terminal import manner

FOLDER = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)
DTYPES = click.Choice(["auto", "bfloat16", "float16", "float32"])
#: Stands for a sparsity that measuring is to find.
AUTO = "auto"
#: What is read as text.
TEXT_HELP = (
    "UTF-8 text file, JSON lines with 'text' or with chats as 'messages', a data set's folder "
    "that save_to_disk wrote, or datasets:NAME:SPLIT, which is fetched."
)


class _Share(click.ParamType):
    """A share of the weights, kept or removed."""

    name = "share"

    def __init__(self, removed: bool = False) -> None:
        self._removed = removed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or fail naming the one that was probably meant."""
        try:
            share = float(value)
        except ValueError:
            share = float("nan")
        if (0 <= share < 1) if self._removed else (0 < share <= 1):
            return share
        from .core.options import share_hint

        hint = share_hint(value) or ", such as 0.5"
        span = "removed, at least 0 and below 1" if self._removed else "kept, above 0 and at most 1"
        return self.fail(f"{value} is no share of the weights {span}{hint}", param, ctx)


class _ChosenShare(_Share):
    """A share that is removed, or the word for one that is to be found."""

    name = "share|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number or the word."""
        return value if value == AUTO else super().convert(value, param, ctx)


class _Shares(_Share):
    """Several of them, with commas between."""

    name = "shares"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the numbers."""
        each = super().convert
        return [each(text, param, ctx) for text in value.split(",")] if value.strip() else []


class _Model(click.ParamType):
    """A model's folder or, where that will do, its name on the hub; as text."""

    name = "model"

    def __init__(self, configured: bool = False, hub: bool = True) -> None:
        self._configured, self._hub = configured, hub

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text, if there is such a folder or may be such a name."""
        folder = local_model(value)
        if folder is None and not self._hub:
            raise missing("model folder", Path(value), CheckpointError)
        if folder is not None and self._configured:
            check_model_folder(folder)
        return value


class _EngineModel(_Model):
    """A model's folder, one of `thresher pack`, a GGUF file, or a name on the hub; as text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text, if there is such a thing or may be such a name."""
        path = Path(value)
        # What such a file or folder holds, the engine says.
        if path.is_file() or (path / "engine.json").is_file():
            return value
        return super().convert(value, param, ctx)


class _Text(click.ParamType):
    """A text file, or the folder of a data set."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path, if there is one."""
        check_text(Path(value))
        return Path(value)


class _Device(click.ParamType):
    """A device's name; whether there is such a device only torch can tell."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name."""
        if not re.fullmatch(r"auto|(cpu|cuda|mps|xpu)(:\d+)?", value):
            raise OptionError(f"device={value!r} is no device; use auto, cpu, cuda or cuda:N")
        return value


DENSITY, SPARSITY, TEXT = _Share(), _Share(removed=True), _Text()
CHOSEN_SPARSITY = _ChosenShare(removed=True)
DENSITIES, SPARSITIES = _Shares(), _Shares(removed=True)
#: Any model, one that transformers builds, a folder of any model, and what the engine runs.
MODEL, LANGUAGE_MODEL, MODEL_FOLDER = _Model(), _Model(configured=True), _Model(hub=False)
ENGINE_MODEL = _EngineModel(configured=True)


def with_device(command: Any) -> Any:
    """Add the option of where a command works."""
    said = "auto, cpu, cuda or cuda:N."
    return click.option("--device", type=_Device(), default="auto", show_default=True, help=said)(
        command
    )


def _as_json(ctx: click.Context, option: click.Parameter, given: bool) -> None:
    manner().json |= given


def with_json(command: Any) -> Any:
    """Add the option of a command that prints a table to print JSON instead."""
    return click.option(
        "--json", is_flag=True, expose_value=False, callback=_as_json, help="Print JSON, no table."
    )(command)


class NameOption(click.Option):
    """An option that names a method or a part, and is called as that kind is.

    Its help lists the names, and a wrong one is refused before torch is imported. Both are read
    off the index, which tells of what this package brings.

    Attributes
    ----------
    verb : str
        Which of :data:`~thresher.core.card.VERBS` the command is; its methods' room has that name.
    does : str
        What such methods do.
    """

    verb, does = "prune", "prune a trained model"

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the line of help, with the names in it."""
        self.help = self.help or ", ".join(self._spellings())
        return super().get_help_record(ctx)

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Return the name that was given, if it may be one."""
        text = super().process_value(ctx, value)
        return self.checked(ctx, text) if isinstance(text, str) else text

    def checked(self, ctx: click.Context, text: str) -> str:
        """Return a name that is known, or that may be elsewhere."""
        known, name = self._spellings(), text.strip().lower().replace("_", "-")
        if name in known or self._may_be_elsewhere(ctx, text):
            return text
        if self.name != "method":
            raise unknown(str(self.name), text, known)
        if name in index()["methods"]:
            raise OptionError(
                f"method {text!r} does not {self.does}; `thresher methods {name}` says "
                f"what it does, and `thresher methods --area {self.verb}` lists those that do"
            )
        found = index()["methods"]
        called = names_in_papers({each: found[each]["card"]["title"] for each in known})
        listed = f"`thresher methods --area {self.verb}` lists them"
        raise unknown("method", text, known, listed, called)

    def _may_be_elsewhere(self, ctx: click.Context, text: str) -> bool:
        """Return whether only the parts themselves can tell if `text` names one."""
        from importlib.metadata import entry_points

        numbers = self.name != "method" and any(letter.isdigit() for letter in text)
        plugins = ctx.find_root().params["plugin"] or entry_points(group="thresher.methods")
        return numbers or bool(plugins)

    def _spellings(self) -> list[str]:
        if self.name == "method":
            found = index()["methods"].items()
            return [name for name, each in found if VERBS[self.verb] & {*each["bases"]}]
        return [text for texts in index()["parts"][self.name].values() for text in texts]


class NamesOption(NameOption):
    """An option that takes several such names, with commas between them."""

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Return the names that were given, if each may be one."""
        text = click.Option.process_value(self, ctx, value)
        names = between_commas(text)
        if isinstance(text, str) and not names:
            raise OptionError("no method is named; name at least one, such as sparsegpt")
        return [self.checked(ctx, name) for name in names]


def between_commas(text: Any) -> list[str]:
    """Return the texts between commas that are not empty."""
    parts = text.split(",") if isinstance(text, str) else []
    return [part.strip() for part in parts if part.strip()]
