"""The compact analyzer: the paper's, thinner, and with pooling in place of its 25088-wide layer.

This project's own; at least ten times fewer multiply-accumulates and parameters than the published one.
"""

from __future__ import annotations

from torch import Tensor, nn

from immunogate.networks.analyzer import ResidualBlock

BLOCKS = ((24, 2), (48, 2), (96, 2), (96, 1), (192, 2))
"""Output channels and stride of each block after a first layer that halves the picture."""

FEATURES = 256


class CompactEncoder(nn.Module):
    """The convolutional part; the checkpoint's state dict ``encoder``."""

    def __init__(self) -> None:
        super().__init__()
        channels = 16
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, 2, 1, bias=False), nn.PReLU(channels)]
        for channels_out, stride in BLOCKS:
            layers.append(ResidualBlock(channels, channels_out, stride))
            channels = channels_out
        self.layers = nn.Sequential(*layers)

    def forward(self, faces: Tensor) -> Tensor:
        """(B, 1, 112, 112) float32 in [-1, 1] to (B, 192, 4, 4) float32."""
        maps: Tensor = self.layers(faces)
        return maps


def compact_feature_layers() -> nn.Sequential:
    """From the maps to f: (B, 192, 4, 4) to (B, 256) float32, over the mean and no more than the mean of each map."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(BLOCKS[-1][0], FEATURES),
        nn.BatchNorm1d(FEATURES),
        nn.PReLU(FEATURES),
    )
