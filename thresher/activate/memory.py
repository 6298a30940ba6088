"""Making the activations of a model sparse that is in memory."""

from __future__ import annotations

__all__ = ["activate", "as_activation_recipe", "record_of"]

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..core.card import find
from ..core.compiled import uncompiled
from ..core.dtypes import dtype_named
from ..core.errors import DataError, OptionError
from ..core.progress import progress_bar
from ..core.remembered import remember, remembered
from ..parts.activations.attached import attached, detach
from ..parts.calibration import warn_of_fewer
from ..parts.coverage import cover
from ..parts.given import check_is_model
from ..stream.passes import placed
from ..stream.precision import Precision, runnable, widened, widened_sample
from ..stream.samples import as_samples
from ..stream.source import InMemory
from ..stream.units import find_units
from .calibrate import calibrate
from .recipe import ActivationRecipe
from .record import ActivationRecord

#: Windows of calibration text, and tokens of each, by default.
WINDOWS, LENGTH = 16, 512


def activate(
    model: nn.Module,
    method: str | ActivationRecipe,
    data: Any = None,
    *,
    sparsity: float | None = None,
    levels: str | Any = None,
    rule: str | Any = None,
    tokenizer: Any = None,
    windows: int | None = None,
    length: int | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    precision: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> nn.Module:
    """Have a model drop the activations of each token that matter least, in place.

    Nothing is trained and no weight changes: layers get selections with calibrated thresholds,
    whose buffers are copied, moved, saved and loaded with the model. Weights that a dropped input
    would have multiplied need not be read, which engines with kernels for it make use of; torch's
    own products, as here, take no less time.

    Parameters
    ----------
    model : nn.Module
        Any module; its state keeps all its names. Selections of an earlier call are replaced.
    method : str or ActivationRecipe
        A name such as ``"teal"``, see ``thresher methods --area activate``, or parts composed.
    data : optional
        Calibration data, see :func:`thresher.prune`. A language model falls back on Python's
        documentation.
    sparsity : float, optional
        Share of the weights that a token need not read, in [0, 1). At 0 the model gives what it
        gave, bit for bit.
    levels : str or Levels, optional
        ``"uniform"`` or ``"greedy"``: how a block's sparsity is shared out, by default the
        method's.
    rule : str or Rule, optional
        ``"threshold"`` or ``"top-k"``, by default the method's.
    tokenizer : optional
        For texts; by default loaded from where the model came from.
    windows, length : int, optional
        How many windows of how many tokens texts are cut into, at most, by default 16 and 512.
        Other data is used as it is.
    include, exclude : sequence of str
        Shell patterns of layer names to cover although they would stay dense (the output head),
        and to leave dense; see :func:`~thresher.parts.coverage.find_layers`.
    precision : torch.dtype or str, optional
        Of forward passes in calibration, see :func:`thresher.prune`.
    device : str or torch.device, optional
        Where to calibrate; by default the model stays where it is.
    progress : bool, default True
        Show a progress bar on a terminal.

    Returns
    -------
    nn.Module
        The model itself. :func:`~thresher.activate.memory.record_of` returns what was measured,
        which :func:`thresher.save <thresher.run.files.export.save>` writes beside it.

    Raises
    ------
    ThresherError
        If an option, a layer or the data cannot be used; the model is then dense.

    Examples
    --------
    >>> import torch, thresher as th
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> sparse = th.activate(model, "teal", torch.randn(64, 8), sparsity=0.5)
    >>> sparse is model
    True
    """
    recipe = as_activation_recipe(method).with_options(sparsity, levels, rule)
    recipe.target  # noqa: B018 - raises
    asked = dtype_named(precision)
    check_is_model(model, "thresher.activate", "thresher activate")
    # What is made in inference mode could not be changed outside it.
    with torch.inference_mode(False), uncompiled(model) as inner, placed(inner, device):
        coverage = cover(inner, include=include, exclude=exclude, strict=False)
        for layer in coverage.layers:
            layer.check_finite()
        samples, described = _samples(inner, data, tokenizer, windows, length)
        weight = coverage.layers[0].weight
        used = Precision.natural(weight.dtype, weight.device, asked)
        if asked is None:
            used = runnable(used, inner, samples[0])
        _remove(inner)
        samples = [widened_sample(sample, used) for sample in samples]
        units = find_units(inner, coverage.layers)
        try:
            with widened(inner, used), progress_bar(len(units), progress) as advance:
                record = calibrate(InMemory(inner), coverage, recipe, samples, used, advance)
        except BaseException:
            _remove(inner)
            raise
        _forget_compiled_code()
        record.model = str(getattr(inner, "name_or_path", "") or type(inner).__name__)
        record.calibration = described
        remember(inner, record, "activations")
    return model


def record_of(model: nn.Module) -> ActivationRecord | None:
    """Return the record of what :func:`activate` did to a model, None where there is none.

    A copy of the model has selections and no record.
    """
    with uncompiled(model) as inner:
        found: ActivationRecord | None = remembered(inner, "activations")
        return found


def as_activation_recipe(method: str | ActivationRecipe) -> ActivationRecipe:
    """Return the recipe that `method` names, or `method` itself.

    Raises
    ------
    OptionError
        If there is no such method, or it is none that makes activations sparse.
    """
    if isinstance(method, ActivationRecipe):
        return method
    kind = find(method)
    if not issubclass(kind, ActivationRecipe) and hasattr(kind, "attach"):
        raise OptionError(
            f"method {method!r} has no thresholds to calibrate, and is used from Python: "
            f"`from {kind.__module__} import {kind.__name__}`, then "
            f"`{kind.__name__}().attach(model, data)`"
        )
    if not issubclass(kind, ActivationRecipe):
        raise OptionError(
            f"method {method!r} does not make activations sparse; `thresher methods {method}` says "
            "what it does, and `thresher methods --area activate` lists those that do"
        )
    return kind()


def _samples(
    model: nn.Module, data: Any, tokenizer: Any, windows: int | None, length: int | None
) -> tuple[list[Any], dict[str, Any]]:
    if data is None and not hasattr(model, "get_input_embeddings"):
        raise DataError(
            f"{type(model).__name__} needs calibration data: pass data=, an iterable of model "
            "inputs"
        )
    samples, described = as_samples(
        model, data, tokenizer=tokenizer, windows=windows, length=length, default=(WINDOWS, LENGTH)
    )
    asked = described.pop("asked", 0)
    if data is not None and asked:
        warn_of_fewer(len(samples), asked, described["length"], "the data")
    return samples, described


def _forget_compiled_code() -> None:
    """Have compiled models compiled anew: their code does not look for hooks that came later."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def _remove(model: nn.Module) -> None:
    """Make a model dense."""
    for name, side in attached(model):
        detach(model.get_submodule(name), side)
