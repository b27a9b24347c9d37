"""The vision projector: the stride-32 map becomes image tokens of the language model's width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """One strided residual block whose second convolution is applied twice, as the released weights expect."""

    def __init__(self, in_channels: int, planes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = nn.Sequential(nn.Conv2d(in_channels, planes, 1, stride=2, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        main = F.relu(self.bn1(self.conv1(x)))
        main = self.bn2(self.conv2(self.conv2(main)))
        return F.relu(main + self.downsample(x))


class Projector(nn.Module):
    """res5 [B, C, s, s] -> image tokens [B, (s/2)^2, width] in raster order. Source: spec section 7 (SwinConv projector)."""

    def __init__(self, in_channels: int, planes: int, width: int) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(ResidualBlock(in_channels, planes))
        self.fc = nn.Linear(planes, width)

    def forward(self, res5: Tensor) -> Tensor:
        return self.fc(self.layer1(res5).flatten(2).transpose(1, 2))
