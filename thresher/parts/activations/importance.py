"""Importances: what an entry is worth besides its magnitude."""

from __future__ import annotations

__all__ = ["ColumnNorm", "Importance", "OwnSize", "PartnerMean"]

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ...core.errors import LayerError
from ...core.named import Spelled
from .. import scores
from ..forms import Kernel
from ..input_rows import InputRows
from ..layers import Layer
from ..statistics import Statistics
from .sites import Site


class Importance(Spelled, ABC):
    """Base class of importances: what the size of an entry is multiplied by before it is judged."""

    kind = "importance"

    @abstractmethod
    def __call__(self, site: Site, statistics: Mapping[str, Statistics]) -> torch.Tensor | None:
        """Return a number per channel, at least 0, shape (channels,); None for one and all alike.

        Parameters
        ----------
        site : Site
            Whose entries are judged.
        statistics : mapping of str to Statistics
            Of the site's watched layers, by name.
        """


@dataclass(frozen=True)
class OwnSize(Importance):
    """The magnitude alone.

    References
    ----------
    Liu et al., Training-Free Activation Sparsity in Large Language Models (2024), section 4.1.
    """

    name = "magnitude"

    def __call__(self, site: Site, statistics: Mapping[str, Statistics]) -> torch.Tensor | None:
        """Return None."""
        return None


@dataclass(frozen=True)
class ColumnNorm(Importance):
    """The Euclidean norm of the weights that multiply an entry.

    Parameters
    ----------
    score : Score, default Magnitude()
        What of a weight counts; any of pruning's scores that looks at no data.

    References
    ----------
    Chen et al., WINA: Weight Informed Neuron Activation for Accelerating Large Language Model
    Inference (2025), section 3.1.
    """

    score: scores.Score = scores.Magnitude()
    name = "column-norm"

    def __call__(self, site: Site, statistics: Mapping[str, Statistics]) -> torch.Tensor | None:
        """Return the norm of each column of the layer that multiplies the entries."""
        reader = site.skipped[-1]
        squares = self.score(reader.matrix(), Statistics(reader.name)).square().sum(dim=-2)
        return _by_channel(reader, squares).sqrt()


@dataclass(frozen=True)
class PartnerMean(Importance):
    """The mean magnitude of what a gate scales.

    References
    ----------
    He et al., CHESS: Optimizing LLM Inference via Channel-Wise Thresholding and Selective
    Sparsification (2024), section 3.2: the error of dropping a gate is about its magnitude times
    this mean.
    """

    name = "partner-mean"

    def __call__(self, site: Site, statistics: Mapping[str, Statistics]) -> torch.Tensor | None:
        """Return the mean over the tokens of calibration; None where nothing is scaled."""
        if site.partner is None:
            return None
        rows = statistics[site.partner.name][InputRows].value
        return site.partner.products(rows).abs().mean(dim=0)


def _by_channel(layer: Layer, sums: torch.Tensor) -> torch.Tensor:
    """Return sums over the columns of a matrix as sums over the channels of its inputs."""
    if isinstance(layer.form, Kernel):
        channels = layer.form.module.in_channels // layer.form.module.groups
        sums = sums.reshape(*sums.shape[:-1], -1, channels).sum(dim=-2)
    if sums.dim() > 2:
        raise LayerError(f"the columns of layer {layer.name!r} are no channels; exclude it")
    return sums.flatten()
