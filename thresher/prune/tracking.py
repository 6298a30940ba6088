"""The record of a pruned model in the tools that keep track of experiments."""

from __future__ import annotations

__all__ = ["TRACKERS", "facts", "figures", "log_record", "record_in", "tracking"]

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from ..core.errors import OptionError
from ..core.extras import naming_the_extra
from ..core.options import check_choice
from ..core.remembered import remember, remembered
from ..run.files.companions import RECORD_FILE
from .record import PruneRecord

#: Tools that :func:`tracking` opens: the name of each is that of its package.
TRACKERS = ("mlflow", "tensorboard", "wandb")
#: What a figure's name begins with, so that it stands apart from those of training.
_PREFIX = "thresher"
_MEASURED = ("evaluation", "tasks", "speed", "healing")
#: MLflow takes no longer text as a parameter, and loses it: 500 characters in its first versions.
_LONGEST = 500


def facts(record: PruneRecord) -> dict[str, str | int | float]:
    """Return what tells one run from another: what was asked for, of what, and with what.

    Parameters
    ----------
    record : PruneRecord
        Of a pruned model.

    Returns
    -------
    dict of str to str, int or float
        By names that begin with ``"thresher/"``; texts have 500 characters at most.
    """
    found: dict[str, Any] = {
        name: getattr(record, name)
        for name in ("model", "method", "recipe", "pattern", "density_asked")
    }
    for name in ("calibration", "versions", "made"):
        found |= _leaves(getattr(record, name), name)
    return {
        f"{_PREFIX}/{name}": value[:_LONGEST] if isinstance(value, str) else value
        for name, value in found.items()
        if isinstance(value, str | int | float)
    }


def figures(record: PruneRecord) -> dict[str, float]:
    """Return the numbers of a record: what was reached, and all that was measured since.

    Parameters
    ----------
    record : PruneRecord
        Of a pruned model.

    Returns
    -------
    dict of str to float
        By names such as ``"thresher/density"`` and ``"thresher/evaluation/pruned_perplexity"``:
        density in [0, 1], seconds, bytes, and what evaluations, tasks, timing and healing left.
    """
    found: dict[str, Any] = {
        "density": record.density,
        "layers": len(record.layers),
        "weights_kept": sum(layer.kept for layer in record.layers),
        "seconds": record.seconds,
        "peak_bytes": record.peak_bytes,
    }
    for name in _MEASURED:
        found |= _leaves(getattr(record, name), name)
    return {
        f"{_PREFIX}/{name}": float(value)
        for name, value in found.items()
        if isinstance(value, int | float)
    }


def log_record(record: PruneRecord, *trackers: Any) -> None:
    """Send the record of a pruned model to tools that keep track of experiments.

    Parameters
    ----------
    record : PruneRecord
        What :func:`thresher.prune` returned, or read from a folder.
    *trackers : objects
        Trackers of accelerate (``accelerator.trackers``), loggers of Lightning
        (``trainer.loggers``), and functions that take a dictionary of numbers, such as the ``log``
        of a transformers ``Trainer``, or ``mlflow.log_metrics``; these do not get texts.

    Raises
    ------
    OptionError
        If something is none of them, before anything is sent.
    """
    senders = [_sender(tracker) for tracker in trackers]
    for send in senders:
        send(facts(record), figures(record))


@contextmanager
def tracking(name: str, project: str, folder: str | Path) -> Iterator[list[Any]]:
    """Open a run in a tool that keeps track of experiments, and close it at the end.

    Parameters
    ----------
    name : str
        One of :data:`TRACKERS`. Where its runs go, its own environment variables say:
        ``MLFLOW_TRACKING_URI``, ``WANDB_MODE`` and the like.
    project : str
        Name of the project or experiment.
    folder : str or Path
        Where TensorBoard's files go.

    Yields
    ------
    list
        Trackers, for :func:`log_record`.

    Raises
    ------
    OptionError
        If the name is none of them, or the tool does not begin a run.
    MissingPackageError
        If its package is not installed.
    """
    check_choice("tracker", name, TRACKERS)
    from accelerate import Accelerator

    with naming_the_extra():
        importlib.import_module(name)
    try:
        accelerator = Accelerator(cpu=True, log_with=name, project_dir=str(folder))
        accelerator.init_trackers(project)
    except Exception as error:  # each tool has errors of its own, for servers, keys and folders
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise OptionError(
            f"{name} does not begin a run: {said}; set what its own documentation asks for, such "
            "as WANDB_MODE=offline or MLFLOW_TRACKING_URI=sqlite:///mlflow.db, or name another "
            "folder"
        ) from error
    try:
        yield accelerator.trackers
    finally:
        accelerator.end_training()


def record_in(model: nn.Module) -> PruneRecord | None:
    """Return the record of a model, or of the first module in it that has one.

    One that was loaded from a folder with a record has that one from here on.
    """
    found = (remembered(module) or _loaded(module) for module in model.modules())
    return next((record for record in found if isinstance(record, PruneRecord)), None)


def _loaded(module: nn.Module) -> PruneRecord | None:
    """Return the record beside the weights that transformers loaded, and remember it."""
    source = getattr(module, "name_or_path", None)
    if not isinstance(source, str) or not source:
        return None
    try:
        record = PruneRecord.from_json((Path(source) / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    remember(module, record)
    return record


def _sender(tracker: Any) -> Any:
    """Return what sends texts and numbers to a tracker."""
    # Accelerate's and Lightning's trackers differ in the names of the same two calls.
    for texts, numbers in (("store_init_configuration", "log"), ("log_hyperparams", "log_metrics")):
        keep, log = getattr(tracker, texts, None), getattr(tracker, numbers, None)
        if callable(keep) and callable(log):
            return lambda known, measured, keep=keep, log=log: (keep(known), log(measured))
    if callable(tracker):
        return lambda _, measured: tracker(measured)
    raise OptionError(
        f"a {type(tracker).__name__} keeps no track of experiments; pass a tracker of accelerate, "
        "a logger of Lightning, or a function that takes a dictionary, such as trainer.log"
    )


def _leaves(held: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what nested mappings hold, by path; lists are too long to be told apart by name."""
    found: dict[str, Any] = {}
    for key, value in held.items():
        path = f"{name}/{key}"
        found |= _leaves(value, path) if isinstance(value, Mapping) else {path: value}
    return found
