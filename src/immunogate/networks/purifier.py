"""The purifier: analyzer, memory and generator in one module, and the reading of its checkpoints."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from immunogate.errors import CheckpointError
from immunogate.networks.analyzer import AntigenEncoder
from immunogate.networks.checkpoint import State, fit_state, read_sections, state_of
from immunogate.networks.generator import COMPONENTS, AntibodyGenerator
from immunogate.networks.memory import Memory

logger = logging.getLogger(__name__)

SECTIONS = ("encoder", "pca_layer")
"""The state dicts a purifier's checkpoint holds, by the names of the public research code."""


class Purifier(nn.Module):
    """From a face to the probability that each eigenface belongs to its antibody.

    Args:
        components: n, the number of eigenfaces.
        temperature: of the memory's softmax; 1 as published.
        paper_exact: keep the published fault of the memory (see `Memory`).

    Raises:
        UsageError: components or temperature out of range.
    """

    def __init__(self, components: int = COMPONENTS, temperature: float = 1.0, *, paper_exact: bool = False) -> None:
        super().__init__()
        self.components = components
        self.encoder = AntigenEncoder()
        self.pca_layer = AntibodyGenerator(components, Memory(temperature, paper_exact=paper_exact))

    def forward(self, faces: Tensor) -> Tensor:
        """(B, 1, 112, 112) float32 in [-1, 1] to p, (B, n) float32 in (0, 1)."""
        probabilities: Tensor = self.pca_layer(self.encoder(faces))
        return probabilities

    def checkpoint(self) -> dict[str, Any]:
        """The weights in the layout of the public checkpoints, for `torch.save` and `load_purifier`."""
        return {"encoder": self.encoder.state_dict(), "pca_layer": self.pca_layer.state_dict()}


def load_purifier(path: Path, temperature: float = 1.0) -> Purifier:
    """The purifier of a checkpoint in the public layout, in evaluation mode.

    The number of eigenfaces is read from the checkpoint and stated in the log; it is `Purifier.components`. Other
    entries of the file (optimizer, epoch) are ignored.

    Args:
        path: a torch file that holds a dict with the state dicts ``encoder`` and ``pca_layer``.
        temperature: of the memory's softmax; a checkpoint does not say it.

    Raises:
        UsageError: the file is not there, or the temperature is out of range.
        CheckpointError: the file is no file of weights, holds values that are not finite, or does not fit.
    """
    encoder, generator = (state_of(part, f"{path} ({name})") for name, part in _sections(path))
    purifier = Purifier(_components(generator, path), temperature)
    fit_state(purifier.encoder, encoder, f"{path} (encoder) as an antigen analyzer")
    fit_state(purifier.pca_layer, generator, f"{path} (pca_layer) as an antibody generator")
    logger.info("%s: a purifier of %d eigenfaces, temperature %g", path, purifier.components, temperature)
    return purifier.eval()


def _sections(path: Path) -> list[tuple[str, object]]:
    content = read_sections(path, SECTIONS, "Give the purifier's checkpoint as its training saved it.")
    return [(name, content[name]) for name in SECTIONS]


def _components(state: State, path: Path) -> int:
    weight = state.get("fc2.0.weight")
    if weight is None or weight.ndim != 2:
        raise CheckpointError(
            f"{path} does not say its number of eigenfaces: pca_layer has no matrix fc2.0.weight",
            "Give the purifier's checkpoint as its training saved it.",
        )
    return len(weight)
