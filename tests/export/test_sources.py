"""Loading what a bundle is made from, above all a public eigenbasis whose columns stand in no order."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch

from immunogate.basis import save_basis, truncate
from immunogate.errors import InputError, UsageError
from immunogate.export.sources import check_top_k, load_sources
from immunogate.files import sha256_of_file
from immunogate.networks.purifier import checkpoint_of, load_purifier
from immunogate.networks.twin import TorchTwin
from immunogate.structs import Floats

pytestmark = [pytest.mark.data, pytest.mark.torch]

GENES = 120


@pytest.fixture(scope="module")
def stored(basis: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A public eigenbasis whose columns were shuffled, as torch.eig left them, and the order they stand in."""
    order = np.random.default_rng(8).permutation(basis.components)
    assert not np.array_equal(order, np.arange(basis.components))
    path = tmp_path_factory.mktemp("public") / "eig.pth"
    torch.save(
        {
            "eig_vec": torch.from_numpy(basis.basis[order].T.copy()),
            "avg_face": torch.from_numpy(basis.mean),
            "eig_val": torch.from_numpy(basis.eigenvalues[order]),
        },
        path,
    )
    return path, order


def test_the_basis_comes_out_sorted(
    stored: Any, basis: Any, recogniser: Path, made: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        sources = load_sources(stored[0], recogniser, "mobilefacenet", made / "purifier.pt", 0.5)
    assert np.all(np.diff(sources.basis.eigenvalues) <= 0)
    assert np.abs(sources.basis.basis - basis.basis).max() < 1e-5
    assert sources.basis.samples == 0


def test_a_purifier_trained_on_stored_columns_purifies_the_same_after_sorting(
    stored: Any, recogniser: Path, made: Path, rows_of_faces: Floats
) -> None:
    """Probabilities by hand in stored order against the exporter's sorted basis and reordered purifier."""
    path, order = stored
    faces = torch.from_numpy(rows_of_faces[:4])
    public = torch.load(path, weights_only=True)
    with torch.no_grad():
        p = load_purifier(made / "purifier.pt", 0.5)(faces.reshape(-1, 1, 112, 112))
        centred = faces - public["avg_face"]
        by_hand = public["avg_face"] + (p * (centred @ public["eig_vec"])) @ public["eig_vec"].T
    assert p.std(dim=1).min() > 0.1, "probabilities must differ, or their order would not matter"
    sources = load_sources(path, recogniser, "mobilefacenet", made / "purifier.pt", 0.5)
    twin = TorchTwin(sources.recogniser, sources.spec, sources.basis, "expected", purifier=sources.purifier)
    with torch.no_grad():
        purified = twin.purify(faces)
        assert (purified - by_hand).abs().max() * 127.5 < 0.05
        # The mistake that this guards against: the sorted basis with probabilities still in stored order.
        mistaken = twin.purify(faces, p)
    assert (mistaken - by_hand).abs().max() * 127.5 > 5
    assert np.array_equal(np.argsort(np.argsort(-public["eig_val"].numpy())), order)


def test_a_purifier_of_fewer_outputs_takes_the_first_stored_columns(
    stored: Any, basis: Any, recogniser: Path, tmp_path: Path, rows_of_faces: Floats
) -> None:
    from immunogate.networks.purifier import Purifier

    path, order = stored
    torch.manual_seed(3)
    torch.save(checkpoint_of(Purifier(30)), tmp_path / "small.pt")
    sources = load_sources(path, recogniser, "mobilefacenet", tmp_path / "small.pt")
    assert sources.basis.components == 30
    expected = basis.eigenvalues[np.sort(order[:30])]
    assert np.allclose(sources.basis.eigenvalues, expected)


def test_without_a_purifier_the_public_basis_is_just_sorted(stored: Any, basis: Any, recogniser: Path) -> None:
    sources = load_sources(stored[0], recogniser, "mobilefacenet")
    assert sources.purifier is None
    assert np.abs(sources.basis.basis - basis.basis).max() < 1e-5


def test_hashes_name_every_source(stored: Any, recogniser: Path, made: Path) -> None:
    hashes = load_sources(stored[0], recogniser, "mobilefacenet", made / "purifier.pt").hashes
    assert hashes == {
        "basis": {"file": "eig.pth", "sha256": sha256_of_file(stored[0])},
        "recogniser": {"file": recogniser.name, "sha256": sha256_of_file(recogniser)},
        "purifier": {"file": "purifier.pt", "sha256": sha256_of_file(made / "purifier.pt")},
    }


def test_a_longer_basis_is_cut_to_the_purifier(recogniser: Path, made: Path, basis: Any, tmp_path: Path) -> None:
    from immunogate.networks.purifier import Purifier

    torch.save(checkpoint_of(Purifier(50)), tmp_path / "p.pt")
    sources = load_sources(made / "basis.npz", recogniser, "mobilefacenet", tmp_path / "p.pt")
    assert sources.basis.components == 50
    assert np.array_equal(sources.basis.basis, basis.basis[:50])


def test_a_basis_too_short_for_the_purifier(
    recogniser: Path, made: Path, basis: Any, stored: Any, tmp_path: Path
) -> None:
    save_basis(tmp_path / "short.npz", truncate(basis, 40))
    with pytest.raises(InputError, match=r"states 120 probabilities.*short\.npz holds 40.*trained with"):
        load_sources(tmp_path / "short.npz", recogniser, "mobilefacenet", made / "purifier.pt")
    public = torch.load(stored[0], weights_only=True)
    torch.save(public | {"eig_vec": public["eig_vec"][:, :40], "eig_val": public["eig_val"][:40]}, tmp_path / "s.pth")
    with pytest.raises(UsageError, match=r"s\.pth holds 40 eigenfaces, 120 were asked for"):
        load_sources(tmp_path / "s.pth", recogniser, "mobilefacenet", made / "purifier.pt")


def test_a_public_basis_of_other_pixels_or_nonsense(recogniser: Path, stored: Any, tmp_path: Path) -> None:
    public = torch.load(stored[0], weights_only=True)
    wrong = {
        "lacks": {key: value for key, value in public.items() if key != "eig_val"},
        "do not go together": public | {"avg_face": public["avg_face"][:-1]},
        "not finite": public | {"eig_val": public["eig_val"] * float("nan")},
        "orthonormal": public | {"eig_vec": torch.rand(112 * 112, GENES)},
    }
    for words, content in wrong.items():
        torch.save(content, tmp_path / "eig.pth")
        with pytest.raises(InputError, match=words):
            load_sources(tmp_path / "eig.pth", recogniser, "mobilefacenet")


def test_a_public_basis_of_another_picture_size(recogniser: Path, stored: Any, tmp_path: Path) -> None:
    public = torch.load(stored[0], weights_only=True)
    small = torch.linalg.qr(torch.rand(64 * 64, GENES))[0]
    torch.save(public | {"eig_vec": small, "avg_face": torch.zeros(64 * 64)}, tmp_path / "eig.pth")
    with pytest.raises(InputError, match="4096"):
        load_sources(tmp_path / "eig.pth", recogniser, "mobilefacenet")


def test_a_purifier_that_diverged(recogniser: Path, made: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(made / "purifier.pt", weights_only=True)
    checkpoint["pca_layer"]["fc2.0.weight"][0, 0] = float("nan")
    torch.save(checkpoint, tmp_path / "p.pt")
    with pytest.raises(InputError, match=r"p\.pt.*not finite.*fc2\.0\.weight"):
        load_sources(made / "basis.npz", recogniser, "mobilefacenet", tmp_path / "p.pt")


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_out_of_range(recogniser: Path, made: Path, temperature: float) -> None:
    with pytest.raises(UsageError, match="temperature"):
        load_sources(made / "basis.npz", recogniser, "mobilefacenet", made / "purifier.pt", temperature)


def test_top_k_is_asked_for_or_the_default(basis: Any) -> None:
    assert check_top_k(None, basis) == GENES
    assert check_top_k(1, basis) == 1
    for wrong in (0, -1, GENES + 1):
        with pytest.raises(UsageError, match=f"1 .. {GENES}"):
            check_top_k(wrong, basis)
