"""What hardware built for sparsity would take: a roofline of multipliers, banks and memory."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from thresher.core.errors import OptionError
from thresher.run.layouts.formats import position_bits


@dataclass(frozen=True)
class BankedAccelerator:
    """A processor that multiplies the banks of a row side by side, one survivor each at a time.

    A row takes as many steps as its fullest bank has survivors, so that only balanced rows keep
    all multipliers busy. Weights are read once, as values and positions; inputs and outputs are
    read and written once. Computing and reading overlap: a layer takes the longer of the two
    (the roofline of Williams et al. 2009).

    Parameters
    ----------
    products_per_second : float
        Multiply-adds of all multipliers together: the peak rate on dense weights.
    bytes_per_second : float
        Of the memory that holds the weights.
    value_bytes : float, default 2
        Bytes of a weight, of an input and of an output.
    bank : int, default 64
        Consecutive inputs of a row that share a multiplier.
    most_sparsity : int, default 32
        No row takes fewer steps than ``bank / most_sparsity``, however sparse it is.

    Raises
    ------
    OptionError
        If a number is not positive.
    """

    products_per_second: float
    bytes_per_second: float
    value_bytes: float = 2
    bank: int = 64
    most_sparsity: int = 32

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise OptionError(f"{name}={value} of an accelerator must be above 0")

    def seconds(self, weight: Tensor, batch: int) -> float:
        """Return the time of ``x @ W.T``.

        Parameters
        ----------
        weight : Tensor
            Shape (rows, columns), with zeros where nothing is kept.
        batch : int
            Rows of `x`.
        """
        rows, columns = weight.shape
        products = batch * int(self.steps(weight).sum()) * -(-columns // self.bank)
        moved = self.weight_bytes(weight) + batch * (rows + columns) * self.value_bytes
        return max(products / self.products_per_second, moved / self.bytes_per_second)

    def steps(self, weight: Tensor) -> Tensor:
        """Return the steps that each row takes, (rows,): the survivors of its fullest bank."""
        fullest = self._survivors(weight).amax(-1)
        return fullest.clamp(min=max(1, self.bank // self.most_sparsity))

    def balance(self, weight: Tensor) -> float:
        """Return the share of multiplications that are not wasted on waiting for other banks."""
        survivors = self._survivors(weight)
        steps = max(1.0, float(survivors.amax(-1).sum()))
        return float(survivors.sum()) / (steps * survivors.shape[1])

    def weight_bytes(self, weight: Tensor) -> float:
        """Return the bytes read for a weight: the dense matrix, or values and positions."""
        kept = float(self.steps(weight).sum()) * -(-weight.shape[1] // self.bank)
        packed = kept * (self.value_bytes + position_bits(self.bank) / 8)
        return min(packed, weight.numel() * self.value_bytes)

    def _survivors(self, weight: Tensor) -> Tensor:
        """Return the survivors of every bank, (rows, banks)."""
        padded = nn.functional.pad((weight != 0).float(), (0, -weight.shape[1] % self.bank))
        return padded.reshape(weight.shape[0], -1, self.bank).sum(-1)
