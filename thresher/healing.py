"""What ``thresher heal`` does, on folders and terminals."""

from __future__ import annotations

__all__ = ["heal_command"]

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.text import Text

from .core.dtypes import dtype_named
from .core.errors import OptionError
from .core.files import read_json
from .core.terminal import show
from .parts.calibration import EMBEDDED, file_windows
from .prune.heal.folder import heal_folder
from .prune.heal.session import HealOptions
from .report.pages import write_pages
from .run.files.checkpoint import resolve
from .run.files.companions import RECORD_FILE
from .stream.ranks import is_first, joined, speaks
from .stream.samples import as_samples
from .workflow import load_tokenizer, read_record, tell, window_length


def heal_command(
    model: str,
    teacher: str | None,
    text: Path | None,
    out: Path | None,
    minutes: float,
    windows: int,
    length: int,
    seed: int,
    precision: str,
    device: str,
    overwrite: bool,
) -> None:
    """Heal a folder, write its report and print what it has come to."""
    source = resolve(model)
    # Not inside the cache of the hub.
    beside = source.resolve() if Path(model).is_dir() else Path(model).resolve().name
    out = out or Path(f"{beside}-healed")
    passes = dtype_named(precision)
    options = HealOptions(minutes, windows, length, seed, passes)
    fitting = window_length(source, length)
    ids = file_windows(text, load_tokenizer(source), length=fitting, count=windows)

    def read(model: Any) -> list[Any]:
        return as_samples(model, ids)[0]

    tell(f"healing {source} for {minutes:g} minutes ...")
    named = str(text or EMBEDDED)
    with joined():
        dense = resolve(teacher or _dense(source))
        record = heal_folder(source, dense, out, read, named, options, device, overwrite)
        if is_first() and (out / RECORD_FILE).is_file():
            write_pages(read_record(out), out)
    if speaks():
        said = (
            f"divergence from the dense model {record.loss_before:.4f} -> {record.loss_after:.4f} "
            f"nats on {record.held_out} held-out windows, after {record.steps} steps"
        )
        show({"out": out, **asdict(record)}, Text(said))
    tell(f"wrote {out}")


def _dense(folder: Path) -> str:
    """Return what the record calls the dense model."""
    file = folder / RECORD_FILE
    held = read_json(file, "pass --teacher DENSE").get("model") if file.is_file() else None
    if not isinstance(held, str) or not held:
        raise OptionError(
            f"{str(folder)!r} does not say which dense model it was pruned from; pass --teacher "
            "DENSE, its folder or hub name"
        )
    return held
