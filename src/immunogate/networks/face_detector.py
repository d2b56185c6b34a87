"""The default face detector: a tiny single-stage network with the outputs of YuNet.

Grids of cells at strides 8, 16 and 32, each cell with a score, a box and five points, after Wu, Peng, Yu, "YuNet: A
Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023. Other than YuNet it sees luma alone, since a
camera at a gate may be grey, halves the picture by strided convolutions and shares no weights between grids.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from immunogate.networks.checkpoint import fit_state, load_state

LUMA = (0.114, 0.587, 0.299)
"""Weights of blue, green and red (ITU-R BT.601)."""

FINE, COARSE = 48, 72
"""Channels of the grid of stride 8, which is most of the work, and of the two others, which see most of the faces."""

NUMBERS = 15
"""That a cell gives: a score, four of the box, ten of the points."""

TEMPLATE = ((-0.22, -0.12), (0.22, -0.12), (0.0, 0.07), (-0.19, 0.23), (0.19, 0.23))
"""Where the five points of an upright face lie about the middle of its box, in shares of the box's sides.

Cells say how far off the points are from there, in shares of the sides too: what a face looks like does not depend on
its size, and no sum of features would multiply with it.
"""

SHIFT = 0.2
"""Share of the sides by which a point moves if a cell says 1: the layer's numbers are all of the same order."""

PRIOR = 0.01
"""Score of every cell before training, so that the many empty cells do not drown the few faces (focal loss paper)."""


Cells = tuple[Tensor, Tensor, Tensor]
"""Scores, boxes and points of one grid."""


class ConvUnit(nn.Sequential):
    """Convolution without bias, BatchNorm, ReLU."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )


class Separable(nn.Module):
    """A depthwise and a pointwise convolution with nothing between; the input is added where the shape stays."""

    def __init__(self, channels_in: int, channels: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels_in, channels_in, kernel, stride, kernel // 2, groups=channels_in, bias=False
        )
        self.pointwise = ConvUnit(channels_in, channels, 1)
        self.residual = stride == 1 and channels_in == channels

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels, H / stride, W / stride)."""
        result: Tensor = self.pointwise(self.depthwise(maps))
        return maps + result if self.residual else result


class Placed(nn.Module):
    """Points (B, 10, N) as the layer gives them, in shares of the box's sides about its middle."""

    def __init__(self) -> None:
        super().__init__()
        self.template: Tensor
        self.register_buffer("template", torch.tensor(TEMPLATE).reshape(1, 10, 1), persistent=False)

    def forward(self, points: Tensor) -> Tensor:
        """The same shape."""
        return self.template + SHIFT * points


class Head(nn.Module):
    """What the cells of one grid say: a score logit, a box and five points, 15 numbers each."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.mixed = nn.Sequential(*(Separable(channels, channels) for _ in range(units)))
        self.last = nn.Conv2d(channels, NUMBERS, 1)
        self.placed: nn.Module = Placed()
        assert self.last.bias is not None
        nn.init.normal_(self.last.weight, std=0.01)
        nn.init.zeros_(self.last.bias)
        nn.init.constant_(self.last.bias[0], -torch.logit(torch.tensor(1 - PRIOR)).item())

    def forward(self, maps: Tensor) -> Cells:
        """(B, channels, H, W) to scores (B, 1, H W), boxes (B, 4, H W) and points (B, 10, H W), cells row by row."""
        cells = self.last(self.mixed(maps)).flatten(2)
        middles, sides = cells[:, 1:3].repeat(1, 5, 1), cells[:, 3:5].exp().repeat(1, 5, 1)
        return cells[:, :1], cells[:, 1:5], middles + sides * self.placed(cells[:, 5:])


class FaceDetector(nn.Module):
    """Luma in, cells out; `YunetOutputs` turns it into what the gate's detector reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvUnit(1, 16, 3, 2)
        self.quarter = nn.Sequential(Separable(16, 32, 3, 2), Separable(32, 32))
        self.eighth = nn.Sequential(Separable(32, FINE, 3, 2), Separable(FINE, FINE, 5))
        self.sixteenth = nn.Sequential(Separable(FINE, COARSE, 5, 2), *(Separable(COARSE, COARSE, 5) for _ in range(2)))
        self.thirty_second = nn.Sequential(Separable(COARSE, COARSE, 5, 2), Separable(COARSE, COARSE, 5))
        self.narrowed = ConvUnit(COARSE, FINE, 1)
        self.joined = nn.ModuleList([Separable(FINE, FINE), Separable(COARSE, COARSE)])
        self.heads = nn.ModuleList([Head(FINE, 1), Head(COARSE, 2), Head(COARSE, 1)])

    def forward(self, luma: Tensor) -> list[Tensor]:
        """The cells of each grid.

        Args:
            luma: (B, 1, H, W) float32, 0 to 1, black where there is no picture; H and W multiples of 32.

        Returns:
            For each stride s of `DETECTOR_STRIDES` (B, H W / s^2, 15) float32: the logit of the score; the box's
            centre relative to the cell's corner and the logarithms of its sides, in strides; x and y of the five
            points relative to the corner, in strides.
        """
        return [torch.cat(parts, dim=1).transpose(1, 2) for parts in self.grids(luma)]

    @torch.no_grad()
    def lower_scores(self, logits: float) -> None:
        """Take this much off the logit of every score."""
        for head in self.heads:
            assert isinstance(head, Head)
            assert head.last.bias is not None
            head.last.bias[0] -= logits

    def grids(self, luma: Tensor) -> list[Cells]:
        """The same in parts and with the cells last: scores (B, 1, N), boxes (B, 4, N) and points (B, 10, N)."""
        fine = self.eighth(self.quarter(self.stem(luma)))
        middle = self.sixteenth(fine)
        coarse = self.thirty_second(middle)
        middle = self.joined[1](middle + interpolate(coarse, scale_factor=2.0, mode="nearest"))
        fine = self.joined[0](fine + interpolate(self.narrowed(middle), scale_factor=2.0, mode="nearest"))
        return [head(maps) for head, maps in zip(self.heads, (fine, middle, coarse), strict=True)]


class YunetOutputs(nn.Module):
    """A trained detector with the input and outputs of a YuNet, BatchNorm and luma folded into the convolutions.

    One convolution of three channels is faster at run time than a luma picture and a convolution of one.

    Args:
        network: is copied and stays as it is.
    """

    def __init__(self, network: FaceDetector) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        _fold(self.network)
        stem = self.network.stem[0]
        assert isinstance(stem, nn.Conv2d)
        weights = torch.tensor(LUMA, device=stem.weight.device).reshape(1, 3, 1, 1) / 255
        stem.weight = nn.Parameter(stem.weight.detach() * weights)
        stem.in_channels = 3

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """What `DETECTOR_OUTPUTS` names, in that order; class and object score are the same.

        Args:
            picture: (B, 3, H, W) float32 BGR, 0 to 255; H and W multiples of 32.
        """
        grids = self.network.grids(picture)
        scores = tuple(scores.sigmoid().transpose(1, 2) for scores, _, _ in grids)
        boxes = tuple(boxes.transpose(1, 2) for _, boxes, _ in grids)
        points = tuple(points.transpose(1, 2) for _, _, points in grids)
        return scores + scores + boxes + points


def load_face_detector(path: Path) -> FaceDetector:
    """A trained detector in evaluation mode.

    Raises:
        UsageError: the file is not there.
        CheckpointError: it is no state dict of this network, or holds values that are not finite.
    """
    network = FaceDetector()
    fit_state(network, load_state(path), f"{path} as the face detector")
    return network.eval()


def _fold(module: nn.Module) -> None:
    """Take each BatchNorm up into the convolution before it."""
    for child in module.children():
        if isinstance(child, ConvUnit):
            convolution, norm = child[0], child[1]
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            child[0], child[1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
        else:
            _fold(child)
        if isinstance(child, Head):
            _fold_places(child)


def _fold_places(head: Head) -> None:
    """Take the template up into the head's last convolution."""
    assert head.last.bias is not None
    assert isinstance(head.placed, Placed)
    with torch.no_grad():
        head.last.weight[5:] *= SHIFT
        head.last.bias[5:] = head.placed.template.flatten() + SHIFT * head.last.bias[5:]
    head.placed = nn.Identity()
