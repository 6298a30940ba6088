import pytest
import torch

from thresher.core.errors import OptionError
from thresher.parts.budgets import summarise
from thresher.parts.compressibility import PQIndex, pq_index


@pytest.mark.parametrize(("p", "q"), [(0.5, 1.0), (1.0, 2.0), (0.5, 2.0)])
def test_the_pq_index_is_its_definition(p, q):
    weights = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    norms = [float(weights.abs().pow(order).sum() ** (1 / order)) for order in (p, q)]
    expected = 1 - 30 ** (1 / q - 1 / p) * norms[0] / norms[1]
    assert pq_index(weights, p, q) == pytest.approx(expected, rel=1e-5)
    # It is of the proportions alone, and cloning changes nothing.
    assert pq_index(torch.cat([weights, weights]) * 1e-30, p, q) == pytest.approx(
        expected, rel=1e-5
    )


def test_the_pq_index_of_equal_and_of_no_weights():
    assert pq_index(torch.full((7,), -3.0)) == pytest.approx(0, abs=1e-12)
    assert pq_index(torch.zeros(3)) == 0
    with pytest.raises(OptionError, match="there are none"):
        pq_index(torch.zeros(0))
    for p, q in [(0, 1), (1, 1), (0.5, 0.9), (2, 3), (float("nan"), 1)]:
        with pytest.raises(OptionError, match="out of range"):
            PQIndex(p, q)


@pytest.mark.parametrize(("p", "q"), [(0.5, 1.0), (0.5, 2.0), (1.0, 2.0)])
def test_the_bound_of_the_pq_index_is_what_a_sparse_layer_needs(p, q):
    # Theorem 2 with eta 0: the r largest weights are no fewer than d (1 - I)^(pq / (q - p)).
    weights = torch.tensor([4.0, 0.0, 0.0, 0.0])
    layer, full = (summarise(n, (4,), 0, w) for n, w in (("a", weights), ("b", torch.ones(4))))
    # A quarter of the layer, and all of b.
    assert PQIndex(p, q)([layer, full], 0.5) == pytest.approx([0.2, 0.8])
