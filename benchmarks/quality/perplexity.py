"""One definition of perplexity for both sides; imports neither Thresher nor its peer."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def perplexity(model: nn.Module, windows: np.ndarray) -> float:
    """Return exp of the mean negative log-likelihood a token.

    Each window of shape ``(length,)`` is read alone and gives ``length - 1`` predictions;
    the mean is over all predictions of all windows, in float32 logits.
    """
    total = 0.0
    with torch.inference_mode():
        for window in torch.from_numpy(windows):
            logits = model(input_ids=window[None]).logits[0, :-1].float()
            total += functional.cross_entropy(logits, window[1:], reduction="sum").item()
    return float(np.exp(total / (windows.shape[0] * (windows.shape[1] - 1))))
