"""Convolutions of frames that follow each other: what changed of them, beside all of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from thresher.activate.delta_activations import DeltaActivations

from .rounds import in_turn, ratios

#: (channels, height and width) of a ResNet's convolutions of 3 x 3, and the shares of the image
#: that a moving square covers.
SHAPES = ((64, 56), (128, 28), (256, 14))
SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)


def frames(repeats: int) -> list[dict[str, Any]]:
    """Time torch's convolution of a frame, and the stream's."""
    found = []
    for channels, size in SHAPES:
        for share in SHARES:
            row = {"channels": channels, "size": size, "changed": share}
            found.append(row | _compared(channels, size, share, repeats))
            print(found[-1], flush=True)
    return found


@torch.no_grad()
def _compared(channels: int, size: int, share: float, repeats: int) -> dict[str, Any]:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1)).eval()
    streamed = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1)).eval()
    side = round(size * share**0.5)
    still = torch.randn(1, channels, size, size)
    moved = still.clone()
    moved[..., :side, :side] += 1
    stream = DeltaActivations().attach(streamed, still).stream()
    streamed(still)
    before = stream.products
    clip = (moved, still)
    for frame in clip:
        streamed(frame)
    entries = stream.products.entries - before.entries
    computed = 1 - (stream.products.zeros - before.zeros) / entries
    works = {
        "dense": lambda: [dense(frame) for frame in clip],
        "stream": lambda: [streamed(frame) for frame in clip],
    }
    seconds = in_turn(works, repeats)
    return {
        "computed": round(computed, 3),
        "microseconds_dense": round(1e6 * min(seconds["dense"]) / len(clip), 1),
        "speedup": ratios(seconds, "dense")["stream"],
    }
