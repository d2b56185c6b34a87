"""IR-50 and IR-SE-50: the ArcFace recognisers of the PyTorch face community, in two dialects of their checkpoints.

Facts from TreB1eN/InsightFace_Pytorch (``model.py``) and RenMin1991/SIDE (``face_utils/arcface.py``); the networks are
those of Deng et al., "ArcFace", CVPR 2019, the squeeze-and-excitation of Hu et al., CVPR 2018.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Dialect = Literal["insightface", "side"]
"""How a checkpoint's author built a block. "insightface": a convolution on the shortcut only where the channels
change, and none but a PReLU between the two convolutions. "side", the recognisers of the SIDE research code: a
convolution on the shortcut wherever the stride is 2, and a BatchNorm before that PReLU."""

STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))
"""Channels and blocks of the four stages; the first block of each halves height and width."""

REDUCTION = 16
EMBEDDING = 512


class SqueezeExcitation(nn.Module):
    """Scales each channel by a weight in (0, 1) computed from all the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, channels // REDUCTION, 1, bias=False)
        self.relu = nn.ReLU()
        self.fc2 = nn.Conv2d(channels // REDUCTION, channels, 1, bias=False)
        self.sigmoid = nn.Sigmoid()

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) float32 to the same."""
        weights: Tensor = self.sigmoid(self.fc2(self.relu(self.fc1(self.avg_pool(maps)))))
        return maps * weights


def _shortcut(channels_in: int, channels: int, stride: int, dialect: Dialect) -> nn.Module:
    convolves = stride != 1 if dialect == "side" else channels_in != channels
    if not convolves:
        return nn.MaxPool2d(1, stride)  # a window of one pixel: takes every stride-th pixel as it is
    return nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


class IrBlock(nn.Module):
    """BatchNorm, two 3 x 3 convolutions, the second with the stride, and a shortcut.

    Args:
        channels_in: channels of the input.
        channels: channels of the output.
        stride: 1 or 2.
        squeeze: end the residual with squeeze-and-excitation.
        dialect: see `Dialect`.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, squeeze: bool, dialect: Dialect) -> None:
        super().__init__()
        self.shortcut_layer = _shortcut(channels_in, channels, stride, dialect)
        between = [nn.BatchNorm2d(channels)] if dialect == "side" else []
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False),
            *between,
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            *([SqueezeExcitation(channels)] if squeeze else []),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels_in, H, W) float32 to (B, channels, H / stride, W / stride) float32."""
        residual: Tensor = self.res_layer(maps)
        shortcut: Tensor = self.shortcut_layer(maps)
        return residual + shortcut


class IrBackbone(nn.Module):
    """The 50-layer backbone (24 blocks); 43.6 M to 43.8 M parameters.

    Args:
        squeeze: IR-SE-50 where true, IR-50 where false.
        dialect: whose checkpoints it loads, see `Dialect`.
    """

    def __init__(self, *, squeeze: bool, dialect: Dialect = "insightface") -> None:
        super().__init__()
        width = STAGES[0][0]
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)
        )
        blocks: list[nn.Module] = []
        for channels, count in STAGES:
            for stride in (2, *[1] * (count - 1)):
                blocks.append(IrBlock(width, channels, stride, squeeze, dialect))
                width = channels
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.Dropout(0.1),
            nn.Flatten(),
            nn.Linear(width * 7 * 7, EMBEDDING),
            nn.BatchNorm1d(EMBEDDING),
        )

    def forward(self, faces: Tensor) -> Tensor:
        """(B, 3, 112, 112) float32 in [-1, 1] to (B, 512) float32, not of unit length."""
        embeddings: Tensor = self.output_layer(self.body(self.input_layer(faces)))
        return embeddings
