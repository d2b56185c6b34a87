"""The torch twin of a deployed bundle: the same purify-then-recognise chain in full precision, with gradients.

`immunogate verify` holds the deployed chain against it; attacks that need gradients run on it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader knows
from torch import Tensor, nn

from immunogate.basis import Eigenbasis
from immunogate.networks.purifier import AntibodyNetwork
from immunogate.networks.recognisers import RecogniserSpec
from immunogate.networks.spectral import analyzer_input
from immunogate.structs import CROP_SIZE
from immunogate.views import MOST_SHIFT, VIEWS, View


class UnitEmbedding(nn.Module):
    """A recogniser whose embeddings have unit length: what is exported.

    Args:
        recogniser: (B, 3, height, width) to (B, E).
    """

    def __init__(self, recogniser: nn.Module) -> None:
        super().__init__()
        self.recogniser = recogniser

    def forward(self, face: Tensor) -> Tensor:
        """(B, 3, height, width) to (B, E) of unit length."""
        embedding: Tensor = self.recogniser(face)
        unit: Tensor = embedding / embedding.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return unit


class TorchTwin(nn.Module):
    """Purifier and recogniser in torch.

    Args:
        recogniser: in evaluation mode.
        spec: its input size and normalisation.
        basis: eigenfaces in full precision.
        mode: fixed, expected or threshold; the modes that draw clones take their weights from outside. none leaves
            faces as they are.
        top_k: eigenfaces kept in mode fixed.
        purifier: needed by every mode but fixed.
        views: of a purified face, whose embeddings are averaged: see `immunogate.views`.
    """

    mean: Tensor
    basis: Tensor

    def __init__(
        self,
        recogniser: nn.Module,
        spec: RecogniserSpec,
        basis: Eigenbasis,
        mode: str = "fixed",
        top_k: int = 0,
        purifier: AntibodyNetwork | None = None,
        views: int = 1,
    ) -> None:
        super().__init__()
        if mode not in ("fixed", "none") and purifier is None:
            raise ValueError(f"mode {mode} needs a purifier, got None")
        self.recogniser = UnitEmbedding(recogniser)
        self.spec = spec
        self.mode = mode
        self.top_k = top_k
        self.purifier = purifier
        self.views = VIEWS[views]
        self.register_buffer("mean", torch.from_numpy(basis.mean))
        self.register_buffer("basis", torch.from_numpy(basis.basis))
        self.eval()

    def embed(self, faces: Tensor) -> Tensor:
        """(B, D) faces in [-1, 1] to (B, E) embeddings of unit length, without purification."""
        planes = self.spec.prepare(faces.reshape(-1, 1, CROP_SIZE, CROP_SIZE))
        embeddings: Tensor = self.recogniser(planes)
        return embeddings

    def probabilities(self, faces: Tensor) -> Tensor:
        """(B, D) faces to (B, n) probabilities; with a gated purifier (B, n + 1), the last for the remainder.

        Raises:
            ValueError: there is no purifier.
        """
        centred = faces - self.mean
        return self.probabilities_of(faces, centred, centred @ self.basis.T)

    def purify(self, faces: Tensor, weights: Tensor | None = None) -> Tensor:
        """(B, D) faces to (B, D) purified ones, x_hat = mu + E^T (a c) + g r with c = E (x - mu), r = x - mu - E^T c.

        Args:
            faces: in [-1, 1].
            weights: (B, n) antibodies a, or (B, n + 1) with g last; by default those of the twin's own mode. Without
                a gate g = 0, as in the paper: the remainder r is taken away.
        """
        if self.mode == "none" and weights is None:
            return faces
        centred = faces - self.mean
        coefficients = centred @ self.basis.T
        antibody = self._antibody(faces, centred, coefficients) if weights is None else weights
        return self.act(centred, coefficients, antibody)

    def act(self, centred: Tensor, coefficients: Tensor, antibody: Tensor) -> Tensor:
        """(B, D) purified faces of (B, D) centred ones, their (B, n) coefficients and (B, n) or (B, n + 1) antibodies.

        With a gate, E^T (a c) + g (d - E^T c) = E^T ((a - g) c) + g d: one product as without.
        """
        genes = coefficients.shape[1]
        if antibody.shape[1] == genes:
            return self.mean + (antibody * coefficients) @ self.basis
        kept, gate = antibody[:, :genes], antibody[:, genes:]
        return self.mean + gate * centred + ((kept - gate) * coefficients) @ self.basis

    def embed_views(self, faces: Tensor) -> Tensor:
        """(B, D) faces to (B, E) unit means of the embeddings of the twin's views."""
        if len(self.views) == 1:
            return self.embed(seen(faces, self.views[0]))
        return F.normalize(torch.stack([self.embed(seen(faces, view)) for view in self.views]).mean(dim=0), dim=1)

    def forward(self, faces: Tensor) -> Tensor:
        """(B, D) faces to (B, E) embeddings of the purified faces."""
        return self.embed_views(self.purify(faces))

    def probabilities_of(self, faces: Tensor, centred: Tensor, coefficients: Tensor) -> Tensor:
        """`probabilities` where (B, D) centred faces and (B, n) coefficients are there already."""
        if self.purifier is None:
            raise ValueError("this twin has no purifier")
        if self.purifier.reads == "face":
            inputs = faces.reshape(-1, 1, CROP_SIZE, CROP_SIZE)
        else:
            inputs = analyzer_input(faces, centred, coefficients)
        probabilities: Tensor = self.purifier(inputs)
        return probabilities

    def _antibody(self, faces: Tensor, centred: Tensor, coefficients: Tensor) -> Tensor:
        if self.mode == "fixed":
            kept = torch.arange(len(self.basis), device=faces.device) < self.top_k
            return kept.to(faces.dtype).expand(len(faces), -1)
        probabilities = self.probabilities_of(faces, centred, coefficients)
        if self.mode == "expected":
            return probabilities
        if self.mode == "threshold":
            return (probabilities > 0.5).to(faces.dtype)
        raise ValueError(f"mode {self.mode} draws clones: give their weights")


def seen(faces: Tensor, view: View) -> Tensor:
    """(B, D) faces in one view, as `immunogate.views.seen`; differentiable."""
    if view == View():
        return faces
    planes = faces.reshape(-1, 1, CROP_SIZE, CROP_SIZE)
    planes = planes.flip(3) if view.mirrored else planes
    padded = F.pad(planes, (MOST_SHIFT,) * 4, mode="replicate")
    top, left = MOST_SHIFT - view.down, MOST_SHIFT - view.right
    return padded[:, :, top : top + CROP_SIZE, left : left + CROP_SIZE].reshape(faces.shape)
