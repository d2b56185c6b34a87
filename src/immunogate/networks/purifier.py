"""Antibody networks: from a face to the probability of each eigenface. Their kinds, and the reading of checkpoints."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from immunogate.errors import CheckpointError, UsageError
from immunogate.networks import compact
from immunogate.networks.analyzer import AntigenEncoder
from immunogate.networks.checkpoint import State, fit_state, read_sections, read_torch_file, state_of
from immunogate.networks.generator import COMPONENTS, AntibodyGenerator
from immunogate.networks.memory import Memory
from immunogate.networks.spectral import SpectralPurifier
from immunogate.networks.wrapping import holder_of

logger = logging.getLogger(__name__)

ARCHITECTURES = ("paper", "compact", "spectral")
SECTIONS = ("encoder", "pca_layer")
"""The state dicts that a checkpoint of the paper's kind holds, by the names of the public research code."""

FIRST_SPREAD = 0.2
"""How much the log odds of a network that begins as a filter differ between faces: their standard deviation."""

LEAST_VARIANCE = 1e-12

_MEND = "Give the purifier's checkpoint as its training saved it."


class Purifier(nn.Module):
    """From a face's pixels to the probability that each eigenface belongs to its antibody.

    Args:
        components: n, the number of eigenfaces.
        temperature: of the memory's softmax; 1 as published.
        paper_exact: keep the published fault of the memory (see `Memory`).
        architecture: paper, or compact for a tenth of its cost.
        gated: give a last probability, the share of the remainder (what no eigenface explains) that is let through.
            The paper has none: it takes the remainder away.

    Raises:
        UsageError: components or temperature out of range, or another architecture.
    """

    reads = "face"

    def __init__(
        self,
        components: int = COMPONENTS,
        temperature: float = 1.0,
        *,
        paper_exact: bool = False,
        architecture: str = "paper",
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.components = components
        self.gated = gated
        self.encoder: nn.Module
        if components < 1:
            raise UsageError(f"an antibody of {components} eigenfaces was asked for", "Ask for at least one.")
        outputs = components + gated
        if architecture == "paper":
            self.encoder = AntigenEncoder()
            self.pca_layer = AntibodyGenerator(outputs, Memory(temperature, paper_exact=paper_exact))
        elif architecture == "compact":
            self.encoder = compact.CompactEncoder()
            memory = Memory(temperature, paper_exact=paper_exact, features=compact.FEATURES)
            self.pca_layer = AntibodyGenerator(outputs, memory, compact.compact_feature_layers())
        else:
            raise UsageError(f"no purifier of the architecture {architecture!r} reads pixels", "Use paper or compact")

    @torch.no_grad()
    def begin_as_filter(self, variances: Tensor, deviation: float, spread: float = FIRST_SPREAD) -> None:
        """Begin near the filter v / (v + s^2), the best mask against white noise of deviation s in every coefficient.

        What the network makes of a face begins as a small change of that mask, and grows as it learns.

        Args:
            variances: (n,) v of each coefficient over clean faces.
            deviation: s.
            spread: standard deviation over faces of the log odds.
        """
        normalised = self.pca_layer.fc2[1]
        assert isinstance(normalised, nn.BatchNorm1d)  # as the generator was built
        log_odds = (variances.clamp_min(LEAST_VARIANCE) / deviation**2).log()
        normalised.weight.fill_(spread)
        normalised.bias.zero_()
        normalised.bias[: self.components].copy_(log_odds.clamp(-5, 5))

    def forward(self, faces: Tensor) -> Tensor:
        """(B, 1, 112, 112) float32 in [-1, 1] to (B, n) or, gated, (B, n + 1) float32 in (0, 1)."""
        probabilities: Tensor = self.pca_layer(self.encoder(faces))
        return probabilities


AntibodyNetwork = Purifier | SpectralPurifier
"""Every kind has ``architecture``, ``components``, ``gated`` and ``reads``: face or spectrum."""


def checkpoint_of(network: AntibodyNetwork) -> dict[str, Any]:
    """What `torch.save` and `load_purifier` take; the paper's kind keeps the layout of the public checkpoints."""
    about = {"architecture": network.architecture, "gated": network.gated}
    if isinstance(network, SpectralPurifier):
        return {**about, "spectral": network.state_dict()}
    sections = {"encoder": network.encoder.state_dict(), "pca_layer": network.pca_layer.state_dict()}
    return {**about, "temperature": network.pca_layer.memory.temperature, **sections}


def load_purifier(path: Path, temperature: float | None = None) -> AntibodyNetwork:
    """The antibody network of a checkpoint, in evaluation mode.

    A file that does not name its architecture is a public checkpoint of the paper's. The number of eigenfaces is
    read from the weights and stated in the log. Other entries of the file (optimizer, epoch) are ignored, and the two
    state dicts may lie in a container or be one of flat names, see `immunogate.networks.wrapping`.

    Args:
        path: a torch file that holds a dict as `checkpoint_of` makes it.
        temperature: of the memory's softmax, where the checkpoint does not say it; 1 by default.

    Raises:
        UsageError: the file is not there, or the temperature is out of range or not the checkpoint's own.
        CheckpointError: the file is no file of weights, holds values that are not finite, or does not fit.
    """
    holder = holder_of(read_torch_file(path), SECTIONS)
    about = holder if isinstance(holder, dict) else {}
    architecture, gated = about.get("architecture", "paper"), about.get("gated", False)
    if architecture not in ARCHITECTURES or not isinstance(gated, bool):
        raise CheckpointError(
            f"{path} names the architecture {str(architecture)[:40]!r} (gated: {str(gated)[:10]})",
            f"Known are {', '.join(ARCHITECTURES)}. {_MEND}",
        )
    if architecture == "spectral":
        network: AntibodyNetwork = _spectral(path, gated)
    else:
        network = _of_pixels(path, architecture, gated, _temperature(path, about.get("temperature"), temperature))
    logger.info("%s: a %s purifier of %d eigenfaces", path, architecture, network.components)
    return network.eval()


def _temperature(path: Path, own: object, given: float | None) -> float:
    if own is None:
        return 1.0 if given is None else given
    if not isinstance(own, int | float):
        raise CheckpointError(f"{path} states no number as its memory's temperature", _MEND)
    if given is not None and given != own:
        raise UsageError(f"{path} was trained with temperature {own:g}, {given:g} was given", "Leave it out")
    return float(own)


def _spectral(path: Path, gated: bool) -> SpectralPurifier:
    state = state_of(read_sections(path, ("spectral",), _MEND)["spectral"], f"{path} (spectral)")
    scale, hidden = state.get("scale"), state.get("details.weight")
    if scale is None or scale.ndim != 1 or len(scale) < 3 or hidden is None or hidden.ndim != 2:
        raise CheckpointError(f"{path} does not say its number of eigenfaces: it has no vector scale", _MEND)
    network = SpectralPurifier(torch.ones(len(scale)), len(hidden), gated=gated)
    fit_state(network, state, f"{path} as a spectral purifier")
    return network


def _of_pixels(path: Path, architecture: str, gated: bool, temperature: float) -> Purifier:
    content = read_sections(path, SECTIONS, _MEND)
    encoder, generator = (state_of(content[name], f"{path} ({name})") for name in SECTIONS)
    components = _outputs(generator, path) - gated
    network = Purifier(components, temperature, architecture=architecture, gated=gated)
    fit_state(network.encoder, encoder, f"{path} (encoder) as an antigen analyzer")
    fit_state(network.pca_layer, generator, f"{path} (pca_layer) as an antibody generator")
    return network


def _outputs(state: State, path: Path) -> int:
    weight = state.get("fc2.0.weight")
    if weight is None or weight.ndim != 2:
        raise CheckpointError(
            f"{path} does not say its number of eigenfaces: pca_layer has no matrix fc2.0.weight", _MEND
        )
    return len(weight)
