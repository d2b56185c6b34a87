"""The teacher: a frozen recogniser that labels faces, with maps from its middle where its architecture is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from immunogate.errors import UsageError
from immunogate.networks.frozen import frozen
from immunogate.networks.gateface import EMBEDDING
from immunogate.networks.mobilefacenet import MobileFaceNet
from immunogate.networks.recognisers import RecogniserSpec
from immunogate.structs import Pixels

TAPS = (11, 14)
"""Blocks of MobileFaceNet whose outputs have the sizes of the student's last two stages, 14 x 12 and 7 x 6. Larger
maps, of the stage before, would cost as much time as all others together."""

HINT_CHANNELS = (128, 128, 512)
"""Channels of the maps after these blocks and before its depthwise end."""

_BATCH = 32
_LEAST_DEVIATION = 1e-3


class Tapped(nn.Module):
    """A MobileFaceNet that gives its embeddings and the maps that a student is shown.

    Args:
        network: is used, not copied.
    """

    def __init__(self, network: MobileFaceNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, faces: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, 112, 96) to the embeddings (B, 128) and three maps, see `HINT_CHANNELS`."""
        network = self.network
        maps, found = network.dw_conv1(network.conv1(faces)), []
        for number, block in enumerate(network.blocks):
            maps = block(maps)
            if number in TAPS:
                found.append(maps)
        last = network.conv2(maps)
        return network.linear1(network.linear7(last)).flatten(1), *found, last


@dataclass(frozen=True, eq=False)
class Labels:
    """What a teacher says of N faces.

    Attributes:
        embeddings: (N, 128) float32 of unit length.
        hints: maps (N, C, H, W), each channel with mean 0 and deviation 1 over the N faces; none if not asked for.
    """

    embeddings: Tensor
    hints: tuple[Tensor, ...]


class Teacher:
    """Labels faces.

    Args:
        network: the recogniser; is copied.
        spec: its input.
        device: to work on.
        dtype: of its arithmetic and of the maps it gives, float32 or bfloat16.

    Raises:
        UsageError: its embeddings have not the student's length, or its input is not that of the student.
    """

    def __init__(self, network: nn.Module, spec: RecogniserSpec, device: torch.device, dtype: torch.dtype) -> None:
        if spec.embedding_dimension != EMBEDDING:
            raise UsageError(
                f"the student gives {EMBEDDING} numbers, the teacher {spec.name} {spec.embedding_dimension}",
                "Use a teacher whose embeddings have the student's length",
            )
        self.spec = spec
        self.taps = isinstance(network, MobileFaceNet)
        taught = Tapped(network) if isinstance(network, MobileFaceNet) else network
        self._network = frozen(taught).to(device=device, dtype=dtype)
        self._device, self._dtype = device, dtype

    def planes(self, images: Pixels) -> Tensor:
        """(N, 112, 112) uint8 as the input, (N, 3, height, width) float32, which is the student's too."""
        faces = torch.from_numpy(images).to(self._device, torch.float32)[:, None] / 127.5 - 1
        return self.spec.prepare(faces)

    @torch.no_grad()
    def label(self, images: Pixels, *, hints: bool = False) -> Labels:
        """What the student shall give for (N, 112, 112) uint8 faces, and the maps if asked for and to be had."""
        parts: list[tuple[Tensor, ...]] = []
        for start in range(0, len(images), _BATCH):
            given = self._network(self.planes(images[start : start + _BATCH]).to(self._dtype))
            found = given if self.taps else (given,)
            parts.append(found if hints else found[:1])
        embeddings, *maps = (torch.cat(part) for part in zip(*parts, strict=True))
        unit = nn.functional.normalize(embeddings.float(), dim=1)
        return Labels(unit, tuple(_standard(each) for each in maps))


def _standard(maps: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(maps.float(), dim=(0, 2, 3), keepdim=True)
    return (maps - mean.to(maps.dtype)).div_(deviation.clamp_min(_LEAST_DEVIATION).to(maps.dtype))
