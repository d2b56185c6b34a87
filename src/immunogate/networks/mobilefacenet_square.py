"""MobileFaceNet for the whole 112 x 112 face, with the key names of TreB1eN/InsightFace_Pytorch.

The body is that of Chen et al., "MobileFaceNets", CCBR 2018; the head is a depthwise 7 x 7 convolution, a linear layer
and a BatchNorm, 512 values. Facts from that project's ``model.py``.
"""

from __future__ import annotations

from torch import Tensor, nn

from immunogate.networks.mobilefacenet import ConvBlock

EMBEDDING = 512


class DepthWise(nn.Module):
    """Widen, filter each channel by itself, narrow.

    Args:
        channels_in: channels of the input.
        channels: channels of the output.
        stride: 1 or 2, on the depthwise convolution.
        inner: channels between.
        residual: add the input.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, inner: int, *, residual: bool = False) -> None:
        super().__init__()
        self.conv = ConvBlock(channels_in, inner, (1, 1))
        self.conv_dw = ConvBlock(inner, inner, (3, 3), stride, 1, depthwise=True)
        self.project = ConvBlock(inner, channels, (1, 1), linear=True)
        self.residual = residual

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels_in, H, W) float32 to (B, channels, H / stride, W / stride) float32."""
        result: Tensor = self.project(self.conv_dw(self.conv(maps)))
        return maps + result if self.residual else result


class Repeated(nn.Module):
    """Blocks that keep their shape, under the name ``model``.

    Args:
        channels: of input and output.
        count: blocks.
        inner: channels within each.
    """

    def __init__(self, channels: int, count: int, inner: int) -> None:
        super().__init__()
        self.model = nn.Sequential(*(DepthWise(channels, channels, 1, inner, residual=True) for _ in range(count)))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, H, W) float32 to the same."""
        result: Tensor = self.model(maps)
        return result


class SquareMobileFaceNet(nn.Module):
    """The network for faces of 112 rows and 112 columns; 1.2 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvBlock(3, 64, (3, 3), 2, 1)
        self.conv2_dw = ConvBlock(64, 64, (3, 3), 1, 1, depthwise=True)
        self.conv_23 = DepthWise(64, 64, 2, 128)
        self.conv_3 = Repeated(64, 4, 128)
        self.conv_34 = DepthWise(64, 128, 2, 256)
        self.conv_4 = Repeated(128, 6, 256)
        self.conv_45 = DepthWise(128, 128, 2, 512)
        self.conv_5 = Repeated(128, 2, 256)
        self.conv_6_sep = ConvBlock(128, 512, (1, 1))
        self.conv_6_dw = ConvBlock(512, 512, (7, 7), depthwise=True, linear=True)
        self.linear = nn.Linear(512, EMBEDDING, bias=False)
        self.bn = nn.BatchNorm1d(EMBEDDING)

    def forward(self, faces: Tensor) -> Tensor:
        """(B, 3, 112, 112) float32 in [-1, 1] to (B, 512) float32, not of unit length."""
        maps = self.conv_23(self.conv2_dw(self.conv1(faces)))
        maps = self.conv_45(self.conv_4(self.conv_34(self.conv_3(maps))))
        maps = self.conv_6_dw(self.conv_6_sep(self.conv_5(maps)))
        embeddings: Tensor = self.bn(self.linear(maps.flatten(1)))
        return embeddings
