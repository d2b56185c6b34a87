"""IResNet: the recognisers of insightface's arcface_torch, with the key names of its checkpoints.

Facts from deepinsight/insightface, ``recognition/arcface_torch/backbones/iresnet.py``; Deng et al., CVPR 2019.
"""

from __future__ import annotations

from torch import Tensor, nn

CHANNELS = (64, 128, 256, 512)
"""Channels of layer1 to layer4; the first block of each halves height and width."""

EMBEDDING = 512


class IResBlock(nn.Module):
    """BatchNorm before, between and after two 3 x 3 convolutions, the second with the stride.

    Args:
        channels_in: channels of the input.
        channels: channels of the output.
        stride: 1 or 2; a 1 x 1 convolution stands on the shortcut where it is 2.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels_in, H, W) float32 to (B, channels, H / stride, W / stride) float32."""
        hidden = self.prelu(self.bn2(self.conv1(self.bn1(maps))))
        residual: Tensor = self.bn3(self.conv2(hidden))
        shortcut: Tensor = self.downsample(maps)
        return residual + shortcut


def _layer(channels_in: int, channels: int, count: int) -> nn.Sequential:
    first = IResBlock(channels_in, channels, 2)
    return nn.Sequential(first, *(IResBlock(channels, channels, 1) for _ in range(count - 1)))


class IResNet(nn.Module):
    """The backbone; 43.6 M parameters for blocks (3, 4, 14, 3), the ``iresnet50``.

    Args:
        blocks: blocks of layer1 to layer4.
    """

    def __init__(self, blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        width = CHANNELS[0]
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.layer1 = _layer(width, CHANNELS[0], blocks[0])
        self.layer2 = _layer(CHANNELS[0], CHANNELS[1], blocks[1])
        self.layer3 = _layer(CHANNELS[1], CHANNELS[2], blocks[2])
        self.layer4 = _layer(CHANNELS[2], CHANNELS[3], blocks[3])
        self.bn2 = nn.BatchNorm2d(CHANNELS[3])
        self.dropout = nn.Dropout(0.0)
        self.fc = nn.Linear(CHANNELS[3] * 7 * 7, EMBEDDING)
        self.features = nn.BatchNorm1d(EMBEDDING)
        nn.init.ones_(self.features.weight)
        self.features.weight.requires_grad_(False)  # the published training fixes the scale of the embedding

    def forward(self, faces: Tensor) -> Tensor:
        """(B, 3, 112, 112) float32 in [-1, 1] to (B, 512) float32, not of unit length."""
        maps = self.prelu(self.bn1(self.conv1(faces)))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        embeddings: Tensor = self.features(self.fc(self.dropout(self.bn2(maps).flatten(1))))
        return embeddings
