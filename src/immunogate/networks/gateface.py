"""GateFace: this project's own small recogniser, a residual network of dense convolutions.

It ends as MobileFaceNet does (Chen et al., CCBR 2018): a depthwise convolution over the whole last map, which weighs
every place of the face by itself, and a linear layer. Before that it has plain residual blocks (He et al., CVPR 2016)
with linear ends (Sandler et al., CVPR 2018) in place of depthwise ones, and ReLU in place of PReLU: on a CPU that costs
a third of the time at about the same number of weights, since depthwise convolutions and PReLUs wait for memory.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

STEM = (32, 48)
"""Channels of the two convolutions that halve height and width to 28 x 24."""

STAGES = ((48, 48, 2), (96, 96, 2), (128, 96, 1))
"""Channels, inner channels and number of the blocks; each stage but the first halves height and width before them."""

NECK = 512
EMBEDDING = 128


class Halving(nn.Sequential):
    """A 3 x 3 convolution with stride 2, BatchNorm, ReLU."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__(
            OrderedDict(
                conv=nn.Conv2d(channels_in, channels, 3, 2, 1, bias=False),
                bn=nn.BatchNorm2d(channels),
                relu=nn.ReLU(inplace=True),
            )
        )


class Block(nn.Module):
    """Adds to its input what two 3 x 3 convolutions make of it; nothing bends the sum.

    Args:
        channels: of input and output.
        inner: channels between the convolutions.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(inner, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, H, W) float32 to the same."""
        hidden = self.relu(self.bn1(self.conv1(maps)))
        residual: Tensor = self.bn2(self.conv2(hidden))
        return maps + residual


class GateFace(nn.Module):
    """The network for crops of 112 rows and 96 columns; 0.96 M parameters, 147 M multiply-accumulates."""

    def __init__(self) -> None:
        super().__init__()
        first, width = STEM
        self.stem = nn.Sequential(Halving(3, first), Halving(first, width))
        stages: list[nn.Module] = []
        for number, (channels, inner, blocks) in enumerate(STAGES):
            halving = [Halving(width, channels)] if number else []
            stages.append(nn.Sequential(*halving, *(Block(channels, inner) for _ in range(blocks))))
            width = channels
        self.stages = nn.ModuleList(stages)
        self.neck = nn.Sequential(nn.Conv2d(width, NECK, 1, bias=False), nn.BatchNorm2d(NECK), nn.ReLU(inplace=True))
        self.place = nn.Sequential(nn.Conv2d(NECK, NECK, (7, 6), groups=NECK, bias=False), nn.BatchNorm2d(NECK))
        self.embed = nn.Sequential(nn.Conv2d(NECK, EMBEDDING, 1, bias=False), nn.BatchNorm2d(EMBEDDING))

    def maps(self, faces: Tensor) -> list[Tensor]:
        """What the stages and the neck make of (B, 3, 112, 96) faces.

        Returns:
            (B, 48, 28, 24), (B, 96, 14, 12), (B, 128, 7, 6) and (B, 512, 7, 6).
        """
        found = [self.stem(faces)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return [*found[1:], self.neck(found[-1])]

    def head(self, neck: Tensor) -> Tensor:
        """(B, 512, 7, 6) maps of the neck to (B, 128), not of unit length."""
        embeddings: Tensor = self.embed(self._weigh_places(neck))
        return embeddings.flatten(1)

    def _weigh_places(self, neck: Tensor) -> Tensor:
        """(B, 512, 7, 6) to (B, 512, 1, 1); in training by a product, whose gradient torch has four times sooner."""
        if not self.training:
            weighed: Tensor = self.place(neck)
            return weighed
        convolution, norm = self.place
        weight = convolution.get_parameter("weight").transpose(0, 1).to(neck.dtype)
        normalised: Tensor = norm((neck * weight).sum((2, 3), keepdim=True))
        return normalised

    def forward(self, faces: Tensor) -> Tensor:
        """(B, 3, 112, 96) float32, about [-1, 1], to (B, 128) float32, not of unit length."""
        return self.head(self.maps(faces)[-1])
