"""Healing a pruned model that is in memory."""

from __future__ import annotations

__all__ = ["heal"]

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...core.compiled import uncompiled
from ...core.remembered import remember
from ...parts.calibration import EMBEDDED
from ...stream.passes import placed
from ...stream.samples import as_samples
from ..tracking import record_in
from .record import HealRecord
from .session import HealOptions, Session, check_teacher
from .state import HealState
from .student import check_pruned


def heal(
    model: nn.Module,
    teacher: nn.Module,
    data: Any = None,
    *,
    minutes: float = 30.0,
    tokenizer: Any = None,
    windows: int | None = None,
    length: int | None = None,
    seed: int = 0,
    precision: torch.dtype | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> HealRecord:
    """Train a pruned language model, in place, to predict what the dense one predicts.

    Zeros stay where they are, so that N:M and every other pattern is kept, and a model that lost
    whole units, by ``structured`` and the like, keeps its size. The kept weights of
    pruned layers, norms and biases are trained in float32, by Adam, on the divergence of next-token
    distributions and of hidden states; embeddings and the output head stay. The learning rate is
    chosen by trial in the first eighth of the time and falls to zero at its end. The weights that
    are kept in the end are those with the least divergence on held-out windows, the start included,
    judged in the model's own dtypes.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers that has zeros, or is smaller than the dense one.
    teacher : nn.Module
        The dense one, with the same tokenizer; it is not changed.
    data : optional
        Texts or windows of token ids, see :func:`thresher.prune`; by default Python's
        documentation. More text than can be read in the time is better than reading it twice.
    minutes : float, default 30
        Time to take, without loading.
    tokenizer : optional
        For texts; by default loaded from where the model came from.
    windows, length : int, optional
        How many windows of how many tokens texts are cut into, at most, by default 1024 and 512.
        Other data is used as it is.
    seed : int, default 0
        Of the order in which windows are read.
    precision : torch.dtype, optional
        Of passes; by default that of the weights where the device multiplies it at full speed,
        otherwise float32.
    device : str or torch.device, optional
        Where to run both models; afterwards they are where they were. By default the model's.
    progress : bool, default True
        Show a progress bar on a terminal, and write lines elsewhere.

    Returns
    -------
    HealRecord
        Also added to the record that :func:`thresher.prune` left on the model, for
        :func:`thresher.save <thresher.run.files.export.save>`.

    Raises
    ------
    ThresherError
        If an option, a model or the data cannot be used; the model is then as it was.

    References
    ----------
    Kurtic et al., Sparse Fine-tuning for Inference Acceleration of Large Language Models (2023),
    section 2, for the distillation of hidden states.
    """
    options = HealOptions(
        minutes,
        HealOptions.windows if windows is None else windows,
        HealOptions.length if length is None else length,
        seed,
        precision,
        progress,
    )
    with uncompiled(model) as model, uncompiled(teacher) as teacher:
        check_teacher(model, teacher)
        check_pruned(model, teacher)
        place = device or next(model.parameters()).device
        with placed(model, place), placed(teacher, place), tempfile.TemporaryDirectory() as work:
            samples, described = as_samples(
                model,
                data,
                tokenizer=tokenizer,
                windows=windows,
                length=length,
                default=(options.windows, options.length),
            )
            names = {
                "teacher": str(getattr(teacher, "name_or_path", "") or type(teacher).__name__),
                "text": str(described["source"]) if data is not None else EMBEDDED,
            }
            session = Session(
                model, teacher, samples, options, names, Path(work), HealState(), keep=False
            )
            with session.healed() as record:
                pass
        if (pruned := record_in(model)) is not None:
            remember(model, record.added_to(pruned))
    return record
