"""Convolutions in a row: what lies between them, and one convolution in place of several."""

from __future__ import annotations

__all__ = ["Chain", "chain_of", "merged", "with_padding_first"]

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..core.errors import LayerError

#: What each value goes through by itself.
_ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Mish),
    *(nn.Tanh, nn.Sigmoid, nn.Softplus),
)


@dataclass(frozen=True)
class Chain:
    """The convolutions of a Sequential, and what follows each.

    Parameters
    ----------
    head : tuple of nn.Module
        What comes before the first convolution.
    convolutions : tuple of nn.Conv2d
        With the normalisations after them folded.
    between : tuple of tuple of nn.Module
        What follows each convolution, up to the next one.
    """

    head: tuple[nn.Module, ...]
    convolutions: tuple[nn.Conv2d, ...]
    between: tuple[tuple[nn.Module, ...], ...]

    def joined(self, index: int) -> bool:
        """Return whether a convolution and the next may become one, activations apart."""
        return (
            index + 1 < len(self.convolutions)
            and all(isinstance(m, (*_ACTIVATIONS, nn.Identity)) for m in self.between[index])
            and _is_plain(self.convolutions[index])
            and _is_plain(self.convolutions[index + 1])
        )

    def shapes(self, example: torch.Tensor) -> list[torch.Size]:
        """Return the shape of what each convolution is given."""
        found = []
        x = example
        for module in self.head:
            x = module(x)
        for convolution, after in zip(self.convolutions, self.between, strict=True):
            found.append(x.shape)
            x = convolution(x)
            for module in after:
                x = module(x)
        return found

    def sequential(self, ends: Sequence[int], kept: Sequence[int], merge: bool) -> nn.Sequential:
        """Return the Sequential whose convolutions are merged as told, in evaluation mode.

        Parameters
        ----------
        ends : sequence of int
            Of each row of convolutions to merge, the last one; in order.
        kept : sequence of int
            The convolutions after which activations stay; some of `ends`.
        merge : bool
            Whether they are merged, or have their paddings in the first of each row, which gives
            the same and can be trained.
        """
        modules: list[nn.Module] = [copy.deepcopy(module) for module in self.head]
        start = 0
        for end in ends:
            row = self.convolutions[start : end + 1]
            modules += [merged(row)] if merge else with_padding_first(row)
            if end in kept:
                modules += [copy.deepcopy(module) for module in self.between[end]]
            start = end + 1
        return nn.Sequential(*modules).eval()


def chain_of(model: nn.Module) -> Chain:
    """Return the convolutions of a Sequential in evaluation mode; see :class:`Chain`.

    Raises
    ------
    LayerError
        If it is no Sequential, is in training mode, or holds no convolution.
    """
    if not isinstance(model, nn.Sequential):
        raise LayerError(
            f"{type(model).__name__} is no nn.Sequential, in which each module feeds the next; "
            "make the Sequentials in it shallower"
        )
    if model.training:
        raise LayerError(
            "the model is in training mode, in which normalisations cannot be folded; call eval()"
        )
    head: list[nn.Module] = []
    convolutions: list[nn.Conv2d] = []
    between: list[list[nn.Module]] = []
    for module in model:
        if isinstance(module, nn.Conv2d):
            convolutions.append(copy.deepcopy(module))
            between.append([])
        elif not convolutions:
            head.append(module)
        elif isinstance(module, nn.BatchNorm2d) and not between[-1] and _has_moments(module):
            convolutions[-1] = fuse_conv_bn_eval(convolutions[-1], module)
        else:
            between[-1].append(module)
    if not convolutions:
        raise LayerError("the model has no convolution of two dimensions, and nothing to merge")
    return Chain(tuple(head), tuple(convolutions), tuple(map(tuple, between)))


def _has_moments(norm: nn.BatchNorm2d) -> bool:
    return norm.running_mean is not None and norm.weight is not None


def _is_plain(convolution: nn.Conv2d) -> bool:
    return (
        convolution.dilation == (1, 1)
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
    )


def with_padding_first(row: Sequence[nn.Conv2d]) -> list[nn.Conv2d]:
    """Return copies of convolutions whose zeros are all put before the first.

    They give what the one gives that :func:`merged` makes, and differ from the convolutions as
    they were at the border alone, where those put zeros between.
    """
    made = [copy.deepcopy(convolution) for convolution in row]
    padding, stride = [0, 0], [1, 1]
    for convolution in made:
        for axis in (0, 1):
            padding[axis] += stride[axis] * int(convolution.padding[axis])
            stride[axis] *= convolution.stride[axis]
        convolution.padding = (0, 0)
    made[0].padding = (padding[0], padding[1])
    return made


@torch.no_grad()
def merged(row: Sequence[nn.Conv2d]) -> nn.Conv2d:
    """Return the one convolution that does what several do one after another.

    Kernel sizes add up, less one for each that is added, times the strides before. Grouped
    convolutions become ordinary ones.

    Parameters
    ----------
    row : sequence of nn.Conv2d
        Without dilation, padded by zeros, of which all count as put before the first.
    """
    first = with_padding_first(row)
    if len(first) == 1:
        return first[0]
    weight, bias = _dense(first[0]), first[0].bias
    shift = weight.new_zeros(len(weight)) if bias is None else bias.double()
    stride = first[0].stride
    for convolution in first[1:]:
        after = _dense(convolution)
        shift = after.sum((-2, -1)) @ shift
        if convolution.bias is not None:
            shift = shift + convolution.bias.double()
        weight = nn.functional.conv_transpose2d(after, weight, stride=stride)
        stride = (stride[0] * convolution.stride[0], stride[1] * convolution.stride[1])
    made = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        stride=stride,  # type: ignore[arg-type]
        padding=first[0].padding,  # type: ignore[arg-type]
        device=first[0].weight.device,
        dtype=first[0].weight.dtype,
    )
    made.weight.copy_(weight)
    assert made.bias is not None
    made.bias.copy_(shift)
    return made


def _dense(convolution: nn.Conv2d) -> torch.Tensor:
    """Return a convolution's weight as that of an ordinary one, in float64."""
    weight, groups = convolution.weight.double(), convolution.groups
    if groups == 1:
        return weight
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    made = weight.new_zeros(weight.shape[0], inputs * groups, *weight.shape[2:])
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        made[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return made
