"""Unified data-free compression: what a removed channel did, done by the ones that stay."""

from __future__ import annotations

__all__ = ["UDFC", "combination"]

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..core.card import Card, Catalogued
from ..core.errors import LayerError, NumericalError, OptionError
from ..parts.coverage import find_layers
from ..parts.layers import Layer
from ..parts.linalg import damped

_Norm = nn.BatchNorm1d | nn.BatchNorm2d
#: What each value goes through by itself, and what each channel of a convolution does.
_POINTWISE = (nn.ReLU, nn.ReLU6, nn.Dropout, nn.Identity)
_CHANNELWISE = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout2d, nn.Flatten)


@dataclass(frozen=True)
class UDFC(Catalogued):
    """Remove channels without data, and have the next layer take them from the ones that stay.

    A channel of a convolution or Linear, normalisation included, is written as a combination of
    the channels that are kept; the next layer's weights for it are added to theirs in that
    proportion. Removed channels become zeros in both layers and in the normalisation. (The
    paper's quantisation, and what it adds for it, are not part of this class.)

    Parameters
    ----------
    ridge : float, default 0.01
        On the combination, relative to the mean squared norm of the kept filters; above 0.

    Raises
    ------
    OptionError
        If the ridge is not above 0.

    References
    ----------
    Bai et al., Unified Data-Free Compression (2023), sections 3.2 and 3.4.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    >>> {name: len(removed) for name, removed in UDFC().prune(model, density=0.5).items()}
    {'0': 3}
    """

    ridge: float = 0.01
    card = Card(
        name="udfc",
        title="Unified Data-Free Compression: Pruning and Quantization without Fine-Tuning",
        authors="Shipeng Bai et al.",
        year=2023,
        arxiv="2308.07209",
        summary="Remove channels without data; the next layer takes them from those that stay.",
    )

    def __post_init__(self) -> None:
        if not self.ridge > 0:
            raise OptionError(f"ridge {self.ridge} is out of range; it must be above 0")

    @torch.no_grad()
    def prune(self, model: nn.Sequential, density: float) -> dict[str, list[int]]:
        """Remove the channels whose filters are smallest, in place.

        Parameters
        ----------
        model : nn.Sequential
            Of modules in a row. Channels are removed of every convolution and Linear that feeds
            another through a normalisation, activations, pooling or flattening alone.
        density : float
            Share of the channels that each of them keeps, in (0, 1]; at least one.

        Returns
        -------
        dict of str to list of int
            The removed channels, by the name of the layer.

        Raises
        ------
        OptionError
            If the density is out of range.
        LayerError
            If the model is no Sequential, or no layer of it feeds another so.
        """
        if not 0 < density <= 1:
            raise OptionError(
                f"density {density} is out of range; it is the share of channels to keep, above 0 "
                "and at most 1"
            )
        if not isinstance(model, nn.Sequential):
            raise LayerError(
                f"{type(model).__name__} is no nn.Sequential, in which each module feeds the next; "
                "prune the Sequentials in it"
            )
        pairs = _pairs(model)
        if not pairs:
            raise LayerError("no layer of the model feeds another one channel by channel")
        for layer in find_layers(model):
            layer.check_finite()
        return {
            layer.name: self._remove(layer, norm, following, density)
            for layer, norm, following in pairs
        }

    def _remove(self, layer: Layer, norm: Any, following: Layer, density: float) -> list[int]:
        filters = _normalised(layer.matrix(), getattr(layer.module, "bias", None), norm)
        channels = len(filters)
        count = max(1, round(density * channels))
        kept = filters.norm(dim=1).argsort(descending=True, stable=True)[:count].sort().values
        gone = torch.ones(channels, dtype=torch.bool, device=filters.device)
        gone[kept] = False
        shares = combination(filters[kept], filters[gone], self.ridge)
        # Columns of the next layer by channel: kernel positions, or places that were flattened.
        weight = following.weight
        columns = weight.reshape(len(weight), channels, -1)
        columns[:, kept] += torch.einsum("rk,org->okg", shares.to(weight.dtype), columns[:, gone])
        columns[:, gone] = 0
        weight.copy_(columns.reshape(weight.shape))
        _silence(layer.module, gone)
        if norm is not None:
            _silence(norm, gone)
            norm.running_mean[gone] = 0
        return gone.nonzero().squeeze(1).tolist()


def combination(kept: torch.Tensor, removed: torch.Tensor, ridge: float) -> torch.Tensor:
    """Return the combinations of kept filters that are nearest to the removed ones.

    Parameters
    ----------
    kept : Tensor of shape (k, columns)
        A filter in each row, and its shift.
    removed : Tensor of shape (r, columns)
        Likewise.
    ridge : float
        Relative to the mean squared norm of the kept filters.

    Returns
    -------
    Tensor of shape (r, k)
        S that minimises ``|removed - S kept|^2 + ridge |S|^2``.
    """
    factor, failed = torch.linalg.cholesky_ex(damped(kept @ kept.mT, ridge))
    if bool(failed.any()):
        raise NumericalError(
            f"the kept filters of a layer are too alike for ridge={ridge:g}: no combination of "
            "them is the nearest; raise ridge, such as to 1e-4"
        )
    return torch.cholesky_solve(kept @ removed.mT, factor).mT


def _normalised(weight: torch.Tensor, bias: torch.Tensor | None, norm: Any) -> torch.Tensor:
    """Return filters and their shifts as the normalisation leaves them, (channels, columns + 1)."""
    shift = torch.zeros_like(weight[:, 0]) if bias is None else bias.to(weight.dtype)
    if norm is not None:
        scale = (norm.running_var + norm.eps).rsqrt().to(weight.dtype)
        scale = scale if norm.weight is None else scale * norm.weight
        shift = (shift - norm.running_mean) * scale + (0 if norm.bias is None else norm.bias)
        weight = weight * scale.unsqueeze(1)
    return torch.cat([weight, shift.unsqueeze(1)], dim=1)


def _silence(module: Any, gone: torch.Tensor) -> None:
    for parameter in (module.weight, module.bias):
        if parameter is not None:
            parameter[gone] = 0


def _pairs(model: nn.Sequential) -> list[tuple[Layer, _Norm | None, Layer]]:
    """Return layers with the normalisation after them, if any, and the layer that they feed."""
    layers = {layer.name: layer for layer in find_layers(model) if _is_plain(layer.module)}
    found: list[tuple[Layer, _Norm | None, Layer]] = []
    before: Layer | None = None
    norm: _Norm | None = None
    for name, module in model.named_children():
        if name in layers:
            if before is not None:
                found.append((before, norm, layers[name]))
            before, norm = layers[name], None
        elif isinstance(module, _Norm) and norm is None and module.running_mean is not None:
            norm = module
        elif not isinstance(module, _POINTWISE) and (
            # What a Linear gives has its channels last.
            not isinstance(module, _CHANNELWISE)
            or (before is not None and isinstance(before.module, nn.Linear))
        ):
            before = None
    return found


def _is_plain(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (
        isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups == 1
    )
