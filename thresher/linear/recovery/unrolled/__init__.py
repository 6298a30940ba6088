"""Unrolled networks for sparse recovery, trained with torch.

:mod:`thresher.linear` does not import this package, and so no torch; import it by its name.
"""

from ....core.extras import naming_the_extra

with naming_the_extra():
    from .compound_gaussian import CompoundGaussianNetwork
    from .network import UnrolledNetwork
    from .thresholding import UnfoldedThresholding

__all__ = ["CompoundGaussianNetwork", "UnfoldedThresholding", "UnrolledNetwork"]
