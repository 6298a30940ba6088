"""Net-Trim: the sparsest weights, by their l1 norm, that give a ReLU layer's responses."""

from __future__ import annotations

__all__ = ["NetTrim", "sparsest_response"]

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..core.card import Card, Catalogued
from ..core.errors import DataError, LayerError, OptionError
from ..core.options import check_whole
from ..core.prox import soft
from ..parts.coverage import find_layers
from ..stream.passes import calibrating


@dataclass(frozen=True)
class NetTrim(Catalogued):
    """Trim the linear layers of a feed-forward network, each to its own responses on data.

    Every layer is given the dense network's inputs (the paper's parallel scheme), so that layers
    do not wait for each other. How sparse one becomes follows from how closely its responses are
    to be kept.

    Parameters
    ----------
    tolerance : float, default 0.05
        Norm by which the responses of a layer may change, relative to their own; above 0.
    iterations : int, default 500
        Of ADMM.

    Raises
    ------
    OptionError
        If an option is out of range.

    References
    ----------
    Aghasi, Abdi and Romberg, Fast Convex Pruning of Deep Neural Networks (2018), eq. 4 and
    section 5.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> densities = NetTrim(tolerance=0.3).prune(model, torch.randn(100, 8))
    >>> sorted(densities)
    ['0', '2']
    """

    tolerance: float = 0.05
    iterations: int = 500
    card = Card(
        name="net-trim",
        title="Fast Convex Pruning of Deep Neural Networks",
        authors="Alireza Aghasi, Afshin Abdi, Justin Romberg",
        year=2018,
        arxiv="1806.06457",
        summary="Find each ReLU layer's weights of least l1 norm that keep its responses.",
    )

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise OptionError(f"tolerance {self.tolerance} is out of range; it must be above 0")
        check_whole("iterations", self.iterations)

    @torch.no_grad()
    def prune(self, model: nn.Sequential, data: torch.Tensor) -> dict[str, float]:
        """Prune a network in place; biases stay.

        Parameters
        ----------
        model : nn.Sequential
            Of modules in a row. A Linear right before a ReLU need not keep what the ReLU sets to
            zero, others keep their outputs.
        data : Tensor of shape (samples, ...)
            Inputs of the model.

        Returns
        -------
        dict of str to float
            Share of the weights that each Linear keeps, by its name.

        Raises
        ------
        LayerError
            If the model is no Sequential, or has no Linear.
        DataError
            If there is no sample.
        """
        if not isinstance(model, nn.Sequential):
            raise LayerError(
                f"{type(model).__name__} is no nn.Sequential, in which each module feeds the next; "
                "trim the Sequentials in it"
            )
        if not len(data):
            raise DataError("the calibration data is empty")
        layers = find_layers(model)
        linear = {layer.name: layer for layer in layers if isinstance(layer.module, nn.Linear)}
        if not linear:
            raise LayerError("the model has no nn.Linear among its modules to trim")
        for layer in linear.values():
            layer.check_finite()
        trimmed = {}
        with calibrating(model):
            modules = list(model.named_children())
            for (name, module), (_, after) in zip(modules, [*modules[1:], ("", None)], strict=True):
                if name in linear:
                    trimmed[name] = self._trimmed(module, data, isinstance(after, nn.ReLU))
                data = module(data)
        for name, weight in trimmed.items():
            linear[name].overwrite(weight)
        return {name: float((weight != 0).float().mean()) for name, weight in trimmed.items()}

    def _trimmed(self, layer: Any, inputs: torch.Tensor, rectified: bool) -> torch.Tensor:
        weight, bias = layer.weight.detach(), layer.bias
        rows = inputs.flatten(0, -2).to(weight.dtype)
        outputs = rows @ weight.mT
        offset = torch.zeros_like(outputs[:1]) if bias is None else bias.detach()
        free = (outputs + offset <= 0) & rectified
        return sparsest_response(
            rows, outputs, free, -offset.expand_as(outputs), self.tolerance, weight, self.iterations
        )


def sparsest_response(
    inputs: torch.Tensor,
    outputs: torch.Tensor,
    free: torch.Tensor,
    limit: torch.Tensor,
    tolerance: float,
    start: torch.Tensor,
    iterations: int = 500,
) -> torch.Tensor:
    """Return the weights of least l1 norm that give a layer's responses, by ADMM.

    Parameters
    ----------
    inputs : Tensor of shape (samples, columns)
        X.
    outputs : Tensor of shape (samples, rows)
        Y, before the bias is added.
    free : Tensor of bool, shape (samples, rows)
        Outputs that need only stay below `limit`.
    limit : Tensor of shape (samples, rows)
        What a ReLU sets to zero, before the bias is added.
    tolerance : float
        Norm of the change of all other outputs, relative to theirs.
    start : Tensor of shape (rows, columns)
        Where the iteration begins; its mean size sets the length of steps.
    iterations : int, default 500
        Each costs two products with the inputs.

    Returns
    -------
    Tensor of shape (rows, columns)
        With exact zeros; it meets the constraints as nearly as the iteration has converged.

    Notes
    -----
    With W = S and Z = X W^T, where S has the l1 norm and Z the constraints, all three and the
    scaled multipliers are updated in turn. W solves a system of X^T X + I, factored once.
    """
    # Inputs of unit mean square, so that both constraints weigh alike.
    scale = float(inputs.square().mean().sqrt()) * len(inputs) ** 0.5 or 1.0
    inputs, outputs, limit = inputs / scale, outputs / scale, limit / scale
    radius = tolerance * float(outputs[~free].norm())
    threshold = float(start.abs().mean())
    identity = torch.eye(inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
    factor = torch.linalg.cholesky(inputs.mT @ inputs + identity)
    weight, sparse = start, start
    price, response_price = torch.zeros_like(start), torch.zeros_like(outputs)
    for _ in range(iterations):
        sparse = soft(weight - price, threshold)
        made = inputs @ weight.mT
        response = _projected(made - response_price, outputs, free, limit, radius)
        right = sparse + price + (response + response_price).mT @ inputs
        weight = torch.cholesky_solve(right.mT, factor).mT
        price = price + sparse - weight
        response_price = response_price + response - inputs @ weight.mT
    return sparse


def _projected(
    response: torch.Tensor,
    outputs: torch.Tensor,
    free: torch.Tensor,
    limit: torch.Tensor,
    radius: float,
) -> torch.Tensor:
    """Return the nearest responses that meet the constraints."""
    change = (response - outputs).masked_fill(free, 0)
    size = float(change.norm())
    near = outputs + change * min(1.0, radius / size if size else 1.0)
    return torch.where(free, torch.minimum(response, limit), near)
