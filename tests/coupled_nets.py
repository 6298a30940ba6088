"""Small networks whose slices are coupled in different ways, with an input for each."""

import torch
from torch import nn
from torch.nn import functional as F

_IMAGES = torch.randn(2, 3, 18, 18, generator=torch.Generator().manual_seed(0))


class _Residual(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x):
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """Residual streams of two widths."""

    inputs = _IMAGES

    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(_Residual(16, 16), _Residual(16, 32, 2), _Residual(32, 32))
        self.classifier = nn.Linear(32, classes)

    def forward(self, x):
        x = F.adaptive_avg_pool2d(self.blocks(F.max_pool2d(self.stem(x), 2)), 1)
        return self.classifier(torch.flatten(x, 1))


class DenseNet(nn.Module):
    """Every convolution sees what all before it gave, one after another."""

    inputs = _IMAGES

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.head = nn.Linear(20, 5)

    def forward(self, x):
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)))))
        return self.head(torch.cat(features, 1).mean((2, 3)))


class UNet(nn.Module):
    """Group norms, grouped and transposed convolutions, and a path around the middle."""

    inputs = _IMAGES

    def __init__(self):
        super().__init__()
        self.down1 = nn.Conv2d(3, 8, 3, padding=1)
        self.down2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.middle = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.join = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = F.relu(self.down1(x))
        b = F.relu(self.middle(F.silu(self.norm(self.down2(a)))))
        up = F.interpolate(self.up(b), size=a.shape[2:])
        return self.head(F.relu(self.join(torch.cat([a, up], 1))))


class Excited(nn.Module):
    """Channels that are gated by a sigmoid, and a depthwise convolution that doubles them."""

    inputs = _IMAGES

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 24, 3, padding=1)
        self.slope = nn.PReLU(24)
        self.squeeze, self.excite = nn.Linear(24, 6), nn.Linear(6, 24)
        self.depthwise = nn.Conv2d(24, 48, 3, groups=24, padding=1)
        self.head = nn.Conv2d(48, 4, 1)

    def forward(self, x):
        x = self.slope(self.conv(x))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return self.head(self.depthwise(x * gate[:, :, None, None]))


class FusedAttention(nn.Module):
    """Queries, keys and values in one Linear, by three, heads and width."""

    inputs = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(12, 32)
        self.qkv = nn.Linear(32, 96)
        self.project = nn.Linear(32, 7)
        self.heads = 4

    def forward(self, x):
        x = self.embed(x)
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, 8).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1) / 8**0.5).softmax(-1)
        return self.project((scores @ v).transpose(1, 2).reshape(batch, length, -1))


NETS = (ResNet, DenseNet, UNet, Excited, FusedAttention)


def built(kind, *args):
    """Return a network with weights and statistics that are nowhere zero or one."""
    torch.manual_seed(0)
    net = kind(*args).eval()
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point() and tensor.dim() < 2:
                tensor.uniform_(0.5, 1.5)
    return net
