"""The kept entries of a weight as a vector, for whatever needs a number for each of them alone."""

from __future__ import annotations

__all__ = ["Kept"]

import torch

from ..core.errors import LayerError


class Kept:
    """The places of a tensor that are not zero.

    Parameters
    ----------
    weight : Tensor
        Contiguous, of any shape. Its zeros are taken as removed.
    support : Tensor of bool, optional
        Of its shape: other places that count as kept.

    Raises
    ------
    LayerError
        If the tensor is not contiguous, so that its entries have no places in a row.

    Examples
    --------
    >>> kept = Kept(torch.tensor([[0.0, 2.0], [3.0, 0.0]]))
    >>> kept.gather(torch.tensor([[5.0, 6.0], [7.0, 8.0]]))
    tensor([6., 7.])
    """

    def __init__(self, weight: torch.Tensor, support: torch.Tensor | None = None) -> None:
        if not weight.is_contiguous():
            raise LayerError(
                f"a weight of shape {tuple(weight.shape)} is not contiguous; give it "
                "weight.data = weight.data.contiguous() first"
            )
        kept = (weight != 0 if support is None else support.to(weight.device)).reshape(-1)
        # Half the memory of torch's own index, which is that of all moments otherwise.
        short = torch.int32 if weight.numel() < 2**31 else torch.int64
        self._places = None if bool(kept.all()) else kept.nonzero().squeeze(1).to(short)
        self._size = weight.numel()

    def __len__(self) -> int:
        return self._size if self._places is None else len(self._places)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the kept entries of a tensor of the weight's shape, (kept,), as a copy."""
        flat = tensor.detach().reshape(-1)
        return flat.clone() if self._places is None else flat.index_select(0, self._places)

    @torch.no_grad()
    def fill(self, tensor: torch.Tensor, values: torch.Tensor) -> None:
        """Set a tensor of the weight's shape to `values`, (kept,), and to zero elsewhere."""
        tensor.zero_()
        self.add(tensor, values)

    @torch.no_grad()
    def add(self, tensor: torch.Tensor, values: torch.Tensor, scale: float = 1.0) -> None:
        """Add ``scale * values``, (kept,), to the kept entries of a tensor, in place."""
        flat, values = tensor.view(-1), values.to(tensor.dtype)
        if self._places is None:
            flat.add_(values, alpha=scale)
        else:
            flat.index_add_(0, self._places, values, alpha=scale)
