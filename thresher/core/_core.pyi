from torch import Tensor

def obs_sweep(
    weight: Tensor,
    mask: Tensor,
    factor: Tensor,
    errors: Tensor,
    scale: Tensor | None = None,
    minimum: Tensor | None = None,
    most: int = 0,
) -> None: ...
