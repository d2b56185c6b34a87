"""The recognisers by name. What a checkpoint is, its names and shapes say: they fit exactly or not at all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from immunogate.errors import CheckpointError, UsageError
from immunogate.networks.checkpoint import State, fit_state, load_state, misfits
from immunogate.networks.gateface import GateFace
from immunogate.networks.iresnet import IResNet
from immunogate.networks.irse import IrBackbone
from immunogate.networks.likeness import Shapes, fits, look, nearest, shapes_of
from immunogate.networks.mobilefacenet import MobileFaceNet
from immunogate.networks.mobilefacenet_square import SquareMobileFaceNet
from immunogate.networks.wrapping import parts_of
from immunogate.structs import CROP_SIZE

logger = logging.getLogger(__name__)

AUTO = "auto"
"""In place of a name: take the architecture whose names and shapes are the checkpoint's."""


@dataclass(frozen=True)
class RecogniserSpec:
    """What must be known of a recogniser to feed it.

    Attributes:
        name: the architecture's name on the command line and in manifests.
        build: makes the network with random weights.
        height: rows of the input in pixels.
        width: columns of the input in pixels.
        crop_left: first column of the aligned 112 x 112 face that the input takes.
        mean: subtracted from pixel values in 0..255.
        std: divides them thereafter.
        colour: order of the input's three channels. The gate gives it three equal grey ones, which are the same in
            any order; feed anything else, and note that the public InsightFace_Pytorch weights were trained on BGR.
        embedding_dimension: length of the embedding, which no architecture here brings to unit length.
        source: the public project whose checkpoints fit.
    """

    name: str
    build: Callable[[], nn.Module]
    height: int
    width: int
    crop_left: int
    mean: float
    std: float
    colour: str
    embedding_dimension: int
    source: str

    def prepare(self, faces: Tensor) -> Tensor:
        """Aligned grey faces as this recogniser's input; differentiable.

        Args:
            faces: (B, 1, 112, 112) float32 in [-1, 1], where pixel value v in 0..255 stands as v / 127.5 - 1.

        Returns:
            (B, 3, height, width) float32, (v - mean) / std in each of three equal channels.
        """
        columns = faces[..., self.crop_left : self.crop_left + self.width]
        values = ((columns + 1) * 127.5 - self.mean) / self.std
        return values.expand(-1, 3, -1, -1)


def _square(name: str, build: Callable[[], nn.Module], source: str) -> RecogniserSpec:
    return RecogniserSpec(name, build, CROP_SIZE, CROP_SIZE, 0, 127.5, 127.5, "RGB", 512, source)


_INSIGHTFACE = "TreB1eN/InsightFace_Pytorch"
_SIDE = "RenMin1991/SIDE"
_ARCFACE_TORCH = "deepinsight/insightface, recognition/arcface_torch"

RECOGNISERS: dict[str, RecogniserSpec] = {
    spec.name: spec
    for spec in (
        RecogniserSpec(
            "mobilefacenet",
            MobileFaceNet,
            CROP_SIZE,
            96,
            8,
            127.5,
            128.0,
            "RGB",
            128,
            "Xiaoccer/MobileFaceNet_Pytorch",
        ),
        RecogniserSpec(
            "gateface",
            GateFace,
            CROP_SIZE,
            96,
            8,
            127.5,
            128.0,
            "RGB",
            128,
            "this project, immunogate train recogniser",
        ),
        _square("ir50", partial(IrBackbone, squeeze=False), _INSIGHTFACE),
        _square("irse50", partial(IrBackbone, squeeze=True), _INSIGHTFACE),
        _square("ir50_side", partial(IrBackbone, squeeze=False, dialect="side"), _SIDE),
        _square("irse50_side", partial(IrBackbone, squeeze=True, dialect="side"), _SIDE),
        _square("iresnet18", partial(IResNet, (2, 2, 2, 2)), _ARCFACE_TORCH),
        _square("iresnet34", partial(IResNet, (3, 4, 6, 3)), _ARCFACE_TORCH),
        _square("iresnet50", partial(IResNet, (3, 4, 14, 3)), _ARCFACE_TORCH),
        _square("iresnet100", partial(IResNet, (3, 13, 30, 3)), _ARCFACE_TORCH),
        _square("iresnet200", partial(IResNet, (6, 26, 60, 6)), _ARCFACE_TORCH),
        _square("mobilefacenet_square", SquareMobileFaceNet, _INSIGHTFACE),
    )
}
"""Every known architecture by its name."""


def recogniser_spec(name: str) -> RecogniserSpec:
    """The architecture of this name.

    Raises:
        UsageError: no architecture is called so; the known names are listed.
    """
    spec = RECOGNISERS.get(name)
    if spec is None:
        raise UsageError(f"there is no recogniser architecture {name!r}", f"Known are {', '.join(RECOGNISERS)}.")
    return spec


def load_recogniser(path: Path, name: str) -> tuple[nn.Module, RecogniserSpec]:
    """A recogniser in evaluation mode from a checkpoint that must fit an architecture exactly.

    Args:
        path: a torch file with a state dict, bare or as training frameworks wrap it (`immunogate.networks.wrapping`).
        name: of the architecture, or `AUTO`.

    Raises:
        UsageError: the name is unknown, or the file is not there.
        CheckpointError: the file is no state dict, holds values that are not finite, or does not fit; where it fits
            another known architecture, the remedy names it, else it says what comes nearest.
    """
    known = None if name == AUTO else recogniser_spec(name)
    state = load_state(path)
    for prefix, part in _parts(state):
        spec = _of(part) if known is None or fits(_shapes(known.name), part) else None
        if spec is not None:
            _say(path, spec, prefix, part, len(state) - len(part))
            network = spec.build()
            fit_state(network, part, f"{path} as {spec.name}")
            return network.eval(), spec
    if known is None:
        raise CheckpointError(f"{path} fits no known recogniser: it holds {look(state)}", _suggest(state))
    with torch.device("meta"):
        problems = misfits(known.build(), state)
    raise CheckpointError(f"{path} as {name} does not fit: {'; '.join(problems)}", _suggest(state))


def _parts(state: State) -> list[tuple[str, State]]:
    """The state itself, then what stands under each prefix that only some of its names have."""
    return [("", state), *parts_of(state)]


def _say(path: Path, spec: RecogniserSpec, prefix: str, state: State, left: int) -> None:
    beside = f", under {prefix!r}; {left} other tensors are left aside" if prefix else ""
    logger.info("%s: %s of %s, all names and shapes agree (%s)%s", path, spec.name, spec.source, look(state), beside)


def _of(state: State) -> RecogniserSpec | None:
    """The architecture whose names and shapes these are; no two have the same."""
    return next((spec for spec in RECOGNISERS.values() if fits(_shapes(spec.name), state)), None)


@cache
def _shapes(name: str) -> Shapes:
    return shapes_of(RECOGNISERS[name].build)


def _suggest(state: State) -> str:
    for _, part in _parts(state):
        spec = _of(part)
        if spec is not None:
            return f"It fits the architecture {spec.name}: name it with --recogniser-arch {spec.name}."
    near = nearest(state, {name: _shapes(name) for name in RECOGNISERS})
    closest = f" Nearest come {', '.join(near)}." if near else ""
    return f"It fits none of {', '.join(RECOGNISERS)}.{closest}"
