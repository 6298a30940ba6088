"""Making the activations of a model sparse that is in a folder, one block in memory at a time."""

from __future__ import annotations

__all__ = ["activate_folder"]

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ..core.device import device_named
from ..core.progress import progress_bar
from ..parts.coverage import cover
from ..parts.limits import check_windows
from ..run.files.activations import check_dense_folder
from ..run.skeleton import Skeleton
from ..stream.precision import Precision
from ..stream.source import Folder
from ..stream.units import find_units
from .calibrate import calibrate
from .recipe import ActivationRecipe
from .record import ActivationRecord


def activate_folder(
    source: Path,
    recipe: ActivationRecipe,
    windows: torch.Tensor,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    precision: torch.dtype | None = None,
    device: str = "auto",
    progress: bool = True,
) -> tuple[nn.Module, ActivationRecord]:
    """Calibrate a language model's folder, whose weights are read block by block.

    Parameters
    ----------
    source : Path
        A Hugging Face folder, dense or with sparse weights.
    recipe : ActivationRecipe
        With a sparsity.
    windows : Tensor of shape (windows, length), int64
        Token ids to calibrate on.
    include, exclude, precision
        See :func:`thresher.activate`.
    device : str, default "auto"
        Where the model runs.
    progress : bool, default True
        Show a bar on a terminal, and write a line for every block elsewhere.

    Returns
    -------
    model : nn.Module
        Without weights, with its selections: for
        :func:`~thresher.run.files.activations.write_activations`.
    record : ActivationRecord

    Raises
    ------
    ThresherError
        If the folder, an option or the windows cannot be used.
    """
    check_dense_folder(source, "calibrate the dense model's folder")
    skeleton = Skeleton(source)
    model = skeleton.model
    check_windows(model, windows)
    coverage = cover(model, include=include, exclude=exclude)
    place = device_named(device)
    stored = skeleton.stored_dtype(coverage.layers[0].parameter)
    used = Precision.natural(stored, place, precision)
    samples = [{"input_ids": window.unsqueeze(0).to(place)} for window in windows]
    units = find_units(model, coverage.layers)
    with progress_bar(len(units), progress, lines=True) as advance:
        folder = Folder(skeleton, used, place)
        record = calibrate(folder, coverage, recipe, samples, used, advance)
    record.model = str(source)
    return model, record
