"""The EfficientNet-Lite0 network.

EfficientNet-B0 (Tan and Le 2019, arXiv 1905.11946, Table 1) without squeeze-and-excitation
and with ReLU6 for swish, as its authors published it for mobile devices: convolutions,
batch norms and one linear layer, a small realistic image model to prune.
"""

from __future__ import annotations

__all__ = ["EfficientNetLite0", "preprocess"]

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

# Expansion, channels, blocks, stride of the first block, kernel size: Table 1 of the paper.
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


class ConvNorm(nn.Sequential):
    """Convolution with TensorFlow's "same" padding, then batch norm."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        # With stride 2 on an even size, "same" pads one pixel more after than before.
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        layers: list[nn.Module] = [nn.ZeroPad2d((before, after, before, after))] if after else []
        layers.append(nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False))
        layers.append(nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01))
        super().__init__(*layers)


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel, project by 1x1; add the input if shapes allow."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [ConvNorm(inputs, hidden, 1), nn.ReLU6()]
        layers += [ConvNorm(hidden, hidden, kernel, stride, groups=hidden), nn.ReLU6()]
        layers.append(ConvNorm(hidden, outputs, 1))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        change: Tensor = self.layers(x)
        return x + change if self.residual else change


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0, 4.65 million parameters.

    Parameters
    ----------
    classes : int
        Number of logits, 1000 for ImageNet.

    Notes
    -----
    Input of shape ``(batch, 3, 224, 224)``; other sizes are fine when divisible by 32.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, 32, 3, stride=2), nn.ReLU6())
        blocks = []
        inputs = 32
        for expansion, outputs, count, first_stride, kernel in _STAGES:
            for index in range(count):
                stride = first_stride if index == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, expansion, stride, kernel))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(ConvNorm(inputs, 1280, 1), nn.ReLU6())
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of shape ``(batch, classes)``."""
        features = self.head(self.blocks(self.stem(x)))
        logits: Tensor = self.classifier(self.dropout(features.mean(dim=(2, 3))))
        return logits


def preprocess(image: np.ndarray) -> Tensor:
    """Resize and crop a photograph as the network was trained to see it.

    Parameters
    ----------
    image : array of uint8, shape (height, width, 3)
        RGB.

    Returns
    -------
    Tensor, shape (1, 3, 224, 224)
        The central square of 7/8 of the shorter side, as ``(pixel - 127) / 128``.
    """
    side = round(min(image.shape[:2]) * 224 / 256)
    top, left = ((length - side) // 2 for length in image.shape[:2])
    square = torch.tensor(image[top : top + side, left : left + side]).permute(2, 0, 1)[None]
    resized = functional.interpolate(
        square.float(), size=(224, 224), mode="bicubic", antialias=True, align_corners=False
    )
    return (resized.clamp(0, 255) - 127) / 128
