"""The antigen analyzer H: what is in this face that should not be there?

Layers and channel counts after the public research code of Ren et al., "Artificial Immune System of Secure Face
Recognition Against Adversarial Attacks", IJCV 2024; the parameter names are those of its checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn

BLOCKS = ((64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))
"""Output channels and stride of block1 to block8."""

MAP_CHANNELS = BLOCKS[-1][0]
MAP_SIDE = 7
"""The encoder turns 112 x 112 pixels into 512 maps of 7 x 7: four strides of two."""

FEATURES = 512
"""Length of the feature f that stands for one antigen, and of a memory slot."""


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a 1 x 1 shortcut that is always there.

    The stride sits on the second convolution, and the second PReLU acts before the shortcut is added.

    Args:
        channels_in: channels of the input.
        channels: channels of the output.
        stride: 1 or 2.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer = nn.Sequential(
            nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
        )
        self.conv1 = nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.nolinear1 = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.nolinear2 = nn.PReLU(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels_in, H, W) float32 to (B, channels, H / stride, W / stride) float32."""
        hidden = self.nolinear1(self.bn1(self.conv1(maps)))
        residual: Tensor = self.nolinear2(self.bn2(self.conv2(hidden)))
        shortcut: Tensor = self.shortcut_layer(maps)
        return residual + shortcut


class AntigenEncoder(nn.Module):
    """The convolutional part of the analyzer; the checkpoint's state dict ``encoder``. 11.5 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        channels = 64
        self.in_layer = nn.Sequential(nn.Conv2d(1, channels, 3, 1, 1, bias=False), nn.PReLU(channels))
        for number, (channels_out, stride) in enumerate(BLOCKS, start=1):
            self.add_module(f"block{number}", ResidualBlock(channels, channels_out, stride))
            channels = channels_out

    def forward(self, faces: Tensor) -> Tensor:
        """(B, 1, 112, 112) float32 in [-1, 1] to (B, 512, 7, 7) float32."""
        maps = faces
        for layer in self.children():  # in the order they were added: in_layer, block1, ... block8
            maps = layer(maps)
        return maps


def feature_layers() -> nn.Sequential:
    """The dense end of the analyzer, the checkpoint's ``pca_layer.fc1``: (B, 512, 7, 7) to f, (B, 512) float32."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(MAP_CHANNELS * MAP_SIDE * MAP_SIDE, FEATURES),
        nn.BatchNorm1d(FEATURES),
        nn.PReLU(FEATURES),
    )
