"""The antibody generator G and what it stands on: from the analyzer's maps to one probability per eigenface.

After Ren et al., IJCV 2024; the parameter names are those of its public checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn

from immunogate.errors import UsageError
from immunogate.networks.analyzer import feature_layers
from immunogate.networks.memory import Memory

COMPONENTS = 1500
"""n, the eigenfaces of the published model; its predecessor PIN (TIFS 2022) has 2500."""


class AntibodyGenerator(nn.Module):
    """Feature, memory and probabilities; the checkpoint's state dict ``pca_layer``. 13.7 M parameters at n = 1500.

    Args:
        components: n, the number of eigenfaces; at least 1.
        memory: the memory between feature and probabilities; the published one by default.
        features: from the encoder's maps to f; the published layers by default.

    Raises:
        UsageError: no component is asked for.
    """

    def __init__(
        self, components: int = COMPONENTS, memory: Memory | None = None, features: nn.Module | None = None
    ) -> None:
        super().__init__()
        if components < 1:
            raise UsageError(f"an antibody of {components} eigenfaces was asked for", "Ask for at least one.")
        self.fc1 = feature_layers() if features is None else features
        self.memory = Memory() if memory is None else memory
        width = self.memory.units.embedding_dim
        self.fc2 = nn.Sequential(nn.Linear(width, components), nn.BatchNorm1d(components), nn.Sigmoid())

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) float32 from the encoder to p, (B, n) float32 in (0, 1)."""
        probabilities: Tensor = self.fc2(self.memory(self.fc1(maps)))
        return probabilities
