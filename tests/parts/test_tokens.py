"""What every weighting of tokens must do, and the numbers of each."""

import pytest
import torch
from part_examples import concrete_subclasses

from thresher.core.errors import OptionError
from thresher.parts.tokens import ByAttention, EqualTokens, TokenWeights

RECEIVED = torch.tensor([[3.0, 1.0, 2.0, 1.5], [0.5, 0.5, 0.5, 0.5]])


@pytest.mark.parametrize("kind", concrete_subclasses(TokenWeights), ids=lambda k: k.__name__)
def test_weights_are_positive_finite_and_by_name(kind):
    weights = kind()(RECEIVED)
    assert weights.shape == RECEIVED.shape
    assert bool((weights > 0).all())
    assert bool(torch.isfinite(weights).all())
    assert TokenWeights.parse(kind.name) == kind()


def test_attention_puts_each_window_on_a_line_from_one_to_the_largest():
    expected = torch.tensor([[10.0, 1.0, 5.5, 3.25], [1.0, 1.0, 1.0, 1.0]])
    torch.testing.assert_close(ByAttention()(RECEIVED), expected)
    assert float(ByAttention(3.0)(RECEIVED).max()) == 3
    assert torch.equal(EqualTokens()(RECEIVED), torch.ones(2, 4))


def test_weights_below_one_are_refused():
    with pytest.raises(OptionError, match=r"largest=0\.5"):
        ByAttention(0.5)
