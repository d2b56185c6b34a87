"""MobileFaceNet: a recogniser of one million parameters for small devices.

Chen et al., "MobileFaceNets", CCBR 2018; the key names and the 112 x 96 input are those of the public project
Xiaoccer/MobileFaceNet_Pytorch.
"""

from __future__ import annotations

from torch import Tensor, nn

BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
"""Expansion, output channels, repeats, and stride of the first of the repeats."""

EMBEDDING = 128


class ConvBlock(nn.Module):
    """Convolution and BatchNorm, then PReLU unless it is a linear layer.

    Args:
        channels_in: channels of the input.
        channels: channels of the output.
        kernel: height and width of the kernel.
        stride: 1 or 2.
        padding: zeros on each side.
        depthwise: one kernel for each channel.
        linear: no PReLU.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        kernel: tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        *,
        depthwise: bool = False,
        linear: bool = False,
    ) -> None:
        super().__init__()
        groups = channels_in if depthwise else 1
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.prelu: nn.Module = nn.Identity() if linear else nn.PReLU(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels_in, H, W) float32 to (B, channels, H', W') float32."""
        result: Tensor = self.prelu(self.bn(self.conv(maps)))
        return result


class Bottleneck(nn.Module):
    """Widen, filter each channel by itself, narrow; the input is added where the shape stays.

    Args:
        channels_in: channels of the input.
        channels: channels of the output.
        stride: 1 or 2, on the depthwise convolution.
        expansion: the inner width is channels_in times this.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.adds_input = stride == 1 and channels_in == channels
        self.conv = nn.Sequential(
            nn.Conv2d(channels_in, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.PReLU(inner),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.PReLU(inner),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels_in, H, W) float32 to (B, channels, H / stride, W / stride) float32."""
        result: Tensor = self.conv(maps)
        return maps + result if self.adds_input else result


class MobileFaceNet(nn.Module):
    """The network for crops of 112 rows and 96 columns; 1.0 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvBlock(3, 64, (3, 3), stride=2, padding=1)
        self.dw_conv1 = ConvBlock(64, 64, (3, 3), padding=1, depthwise=True)
        blocks: list[nn.Module] = []
        width = 64
        for expansion, channels, repeats, stride in BOTTLENECKS:
            for step in (stride, *[1] * (repeats - 1)):
                blocks.append(Bottleneck(width, channels, step, expansion))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = ConvBlock(width, 512, (1, 1))
        self.linear7 = ConvBlock(512, 512, (7, 6), depthwise=True, linear=True)
        self.linear1 = ConvBlock(512, EMBEDDING, (1, 1), linear=True)

    def forward(self, faces: Tensor) -> Tensor:
        """(B, 3, 112, 96) float32, about [-1, 1], to (B, 128) float32, not of unit length."""
        maps = self.blocks(self.dw_conv1(self.conv1(faces)))
        embeddings: Tensor = self.linear1(self.linear7(self.conv2(maps)))
        return embeddings.flatten(1)
