"""Tasks of lm-evaluation-harness, where it is installed."""

from __future__ import annotations

__all__ = ["MODEL_TYPE", "check_named", "evaluate_named", "register_model_type", "run_harness"]

import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..core.errors import DataError, OptionError, unknown
from ..core.extras import naming_the_extra
from .measure.modes import evaluating

#: How the harness's own command names the models of sparse folders.
MODEL_TYPE = "thresher"
#: What two of its measures are called here.
_MEASURES = {"acc": "accuracy", "acc_norm": "accuracy_norm"}


def check_named(names: Sequence[str]) -> None:
    """Raise unless lm-evaluation-harness is installed and has the tasks.

    Parameters
    ----------
    names : sequence of str
        Its tasks, groups and tags, and files of tasks.

    Raises
    ------
    MissingPackageError
        If it is not installed.
    OptionError
        If it has no such task.
    """
    known = _manager().all_tasks
    for name in names:
        if not Path(name).is_file() and name not in known:
            raise unknown("task", name, known)


def evaluate_named(
    model: nn.Module, tokenizer: Any, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return what lm-evaluation-harness measures; see :func:`thresher.run.tasks.evaluate_tasks`.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers.
    tokenizer : transformers tokenizer
        The model's.
    names : sequence of str
        See :func:`check_named`.

    Raises
    ------
    DataError
        If the data of a task cannot be had.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    with evaluating(model):
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer)
        try:
            found = simple_evaluate(
                wrapped,
                tasks=list(names),
                task_manager=_manager(),
                bootstrap_iters=0,
                log_samples=False,
            )
        except OSError as error:
            raise DataError(
                f"lm-evaluation-harness could not read the data of {', '.join(names)}: {error}"
            ) from error
    counts = found["n-samples"]
    return {name: _measures(held, counts.get(name)) for name, held in found["results"].items()}


@functools.cache
def register_model_type() -> None:
    """Have lm-evaluation-harness know sparse folders as the model type ``thresher``.

    Its command then takes ``--model thresher --model_args pretrained=FOLDER``, and all that its
    type ``hf`` takes; so does ``lm_eval.simple_evaluate``.

    Raises
    ------
    MissingPackageError
        If it is not installed.
    """
    with naming_the_extra():
        from lm_eval.api.registry import register_model
        from lm_eval.models.huggingface import HFLM

    # What it adds to its base is that this package was imported: transformers reads sparse folders.
    register_model(MODEL_TYPE)(type("ThresherLM", (HFLM,), {"__module__": __name__}))


def run_harness(arguments: Sequence[str]) -> None:
    """Run the command of lm-evaluation-harness where it knows sparse folders.

    Parameters
    ----------
    arguments : sequence of str
        What would be typed after ``lm_eval``.

    Raises
    ------
    MissingPackageError
        If it is not installed.
    OptionError
        If it has no such task.
    """
    register_model_type()
    from lm_eval.__main__ import cli_evaluate

    before = sys.argv
    # It reads them there in every version.
    sys.argv = ["lm_eval", *arguments]
    try:
        cli_evaluate()
    except ValueError as error:
        # Which it raises for much else; anything but this one is shown as it is.
        lacking, _, names = str(error).partition("Tasks not found: ")
        if lacking or not names:
            raise
        raise OptionError(
            f"lm-evaluation-harness has no task {names}; `thresher lm-eval ls tasks` lists them "
            "(`--tasks list` in earlier versions)"
        ) from error
    finally:
        sys.argv = before


@functools.cache
def _manager() -> Any:
    """Return what knows the harness's tasks: it reads thousands of files to learn of them."""
    with naming_the_extra():
        from lm_eval.tasks import TaskManager

    return TaskManager()


def _measures(found: Mapping[str, Any], counted: Mapping[str, int] | None) -> dict[str, float]:
    """Return measures by their names: a filter's is added where there is one."""
    measures: dict[str, float] = {}
    for key, value in found.items():
        name, _, chosen = key.partition(",")
        if chosen and not name.endswith("_stderr") and isinstance(value, int | float):
            name = _MEASURES.get(name, name)
            measures[name if chosen == "none" else f"{name} ({chosen})"] = float(value)
    return measures if counted is None else measures | {"questions": counted["effective"]}
