"""What every layer that trains sparse must promise."""

import torch


def check_same_gradients_on_any_threads(layer, x):
    """Assert that the gradients of a sparse layer are the same bits on 1, 2 and 5 threads."""
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        layer.zero_grad()
        leaf = x.clone().requires_grad_()
        layer(leaf).square().sum().backward()
        results.append((leaf.grad, layer.values.grad.clone()))
    for other in results[1:]:
        assert torch.equal(results[0][0], other[0])
        assert torch.equal(results[0][1], other[1])
