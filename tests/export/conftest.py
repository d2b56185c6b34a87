"""What the export's tests share: a purifier with sensible statistics, and bundles made with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.basis import Eigenbasis, save_basis
from immunogate.faces_file import AlignedFaces, faces_from_pixels
from immunogate.structs import Floats

GENES = 120
"""Eigenfaces of the basis that the purifier here speaks of."""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keep the user's cache out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="package", autouse=True)
def one_thread(one_torch_thread: Any) -> Any:
    """Keep torch on one thread: on a busy machine its waiting threads cost more than they give here."""
    with one_torch_thread():
        yield


@pytest.fixture(scope="session")
def faces(fit_and_kept_back: tuple[AlignedFaces, AlignedFaces]) -> AlignedFaces:
    """Six real faces that nothing here is fitted on."""
    return fit_and_kept_back[1].take(np.arange(6))


@pytest.fixture(scope="session")
def rows_of_faces(faces: AlignedFaces) -> Floats:
    """(6, 12544) float32 in [-1, 1]."""
    return faces_from_pixels(faces.images)


@pytest.fixture(scope="session")
def basis(fit_and_kept_back: tuple[AlignedFaces, AlignedFaces]) -> Eigenbasis:
    """120 eigenfaces of 400 real faces."""
    from immunogate.training.eigenbasis import fit_eigenbasis

    return fit_eigenbasis(fit_and_kept_back[0].images[:400], GENES)


@pytest.fixture(scope="session")
def recogniser(data_dir: Path) -> Path:
    """The real MobileFaceNet."""
    return data_dir / "models" / "mobilefacenet_casia_112x96.pt"


@pytest.fixture(scope="session")
def yunet(data_dir: Path) -> Path:
    """The real detector."""
    return data_dir / "models" / "face_detection_yunet_2023mar.onnx"


@pytest.fixture(scope="session")
def made(
    basis: Eigenbasis, fit_and_kept_back: tuple[AlignedFaces, AlignedFaces], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with ``basis.npz`` and ``purifier.pt``: random weights, BatchNorm statistics of real faces."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from immunogate.networks.purifier import Purifier, checkpoint_of

    folder = tmp_path_factory.mktemp("purifier")
    save_basis(folder / "basis.npz", basis)
    torch.manual_seed(20)
    purifier = Purifier(GENES, temperature=0.5).train()
    for layer in purifier.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.momentum = None  # the mean over all batches: three of them would hardly move the default
    torch.nn.init.normal_(purifier.pca_layer.fc2[1].bias, std=1.5)  # some eigenfaces likely, others hardly
    images = torch.from_numpy(faces_from_pixels(fit_and_kept_back[0].images[:36])).reshape(-1, 1, 112, 112)
    with torch.no_grad():
        for batch in images.split(12):
            purifier(batch)
    torch.save(checkpoint_of(purifier), folder / "purifier.pt")
    return folder
