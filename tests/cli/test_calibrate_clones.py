"""``immunogate calibrate clones``: what it measures, chooses and writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from immunogate.bundle import Bundle, open_bundle
from immunogate.calib.clone_budget import Setting
from immunogate.faces_file import AlignedFaces
from immunogate.files import sha256_of_file

Command = Callable[..., Any]
QUICK = ("--rounds", "2", "--pairs", "4", "--clones", "1,8", "--kept", "1,2", "--components", "20,64")


def made_up(count: int) -> AlignedFaces:
    """Two pictures each of smooth made-up people."""
    draw = np.random.default_rng(3)
    coarse = np.repeat(draw.integers(0, 256, (count, 14, 14)), 2, axis=0)
    people = np.kron(coarse, np.ones((1, 8, 8), np.int64))
    images = (people + draw.integers(-20, 21, people.shape)).clip(0, 255).astype(np.uint8)
    return AlignedFaces(images, None, np.repeat([f"p{i}" for i in range(count)], 2))


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, made = tmp_path_factory.mktemp("faces") / "faces.npz", made_up(130)
    assert made.identities is not None
    np.savez(path, images=made.images, identities=made.identities)
    return path


@pytest.fixture
def own(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.folder, tmp_path / "own"))


def test_every_setting_is_measured_and_without_an_attack_nothing_that_draws_is_chosen(
    immunogate: Command, own: Path, faces: Path
) -> None:
    """The tiny bundle has no checkpoints, so there are no gradients; made up people say nothing about rates."""
    before = sha256_of_file(own / "manifest.json")
    done = immunogate("calibrate", "clones", own, faces, "--budget-ms", "60000", "--dry-run", "--json", *QUICK)
    assert done.status == 0, done.err
    data = json.loads(done.out)
    names = [row["name"] for row in data["settings"]]
    assert names == [
        *("fixed, top 20", "fixed, top 64", "expected", "threshold", "sample"),
        *("select, 1 of 1", "select, 1 of 8", "select, 2 of 8"),
    ]
    for row in data["settings"]:
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["faces"] == 2
        assert row["clean"]["of"] == row["replayed"]["of"] == 4
        assert row["adaptive"] is None
    assert any(row["front"] for row in data["settings"])
    assert data["chosen"].split(",")[0] in ("fixed", "expected", "threshold")
    assert "no attack" in data["not_attacked"]
    assert "not to be quoted for unseen" in data["caution"]
    assert "not to be quoted for unseen" in done.err
    assert sha256_of_file(own / "manifest.json") == before


def test_a_budget_that_nothing_meets_fails_and_names_the_fastest(
    immunogate: Command, own: Path, faces: Path, tmp_path: Path
) -> None:
    before = sha256_of_file(own / "manifest.json")
    flags = ("--budget-ms", "0.001", "--modes", "fixed", "--out", tmp_path / "copy")
    done = immunogate("calibrate", "clones", own, faces, *flags, *QUICK)
    done.refused(1, "no setting meets 0.001 ms", "the fastest is fixed, top")
    assert "over the budget" in done.out
    assert sha256_of_file(own / "manifest.json") == before
    assert not (tmp_path / "copy").exists()


def test_the_chosen_setting_is_written_with_thresholds_of_its_own(
    immunogate: Command, own: Path, faces: Path, empty_gallery: Path, tmp_path: Path
) -> None:
    """Another mode is another bundle to galleries; the bundle it was made from stays as it is."""
    pytest.importorskip("matplotlib")
    before, out, picture = open_bundle(own), tmp_path / "copy", tmp_path / "front.png"
    flags = ("--budget-ms", "60000", "--modes", "expected", "--out", out, "--plot", picture)
    done = immunogate("calibrate", "clones", own, faces, *flags, *QUICK)
    assert done.status == 0, done.err
    assert "CHOSEN" in done.out
    assert "galleries enrolled before are refused" in done.err
    assert picture.read_bytes().startswith(b"\x89PNG")
    made = open_bundle(out)
    made.check()
    assert made.manifest.purifier.mode == "expected"
    assert made.manifest.embedding_hash() != before.manifest.embedding_hash()
    used = made.calibration().measured_with
    assert used is not None
    assert used.mode == "expected"
    said = made.manifest.provenance["clones"]
    assert (said["budget_ms"], said["setting"]) == (60000.0, "expected")
    assert open_bundle(own).sha256 == before.sha256
    run = ("run", "--bundle", out, "--source", "synthetic://?frames=2", "--fmr", "1e-2", "--gallery")
    immunogate(*run, empty_gallery).refused(1, "another")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--budget-ms", "0"), "--budget-ms must be above 0"),
        (("--budget-ms", "9", "--pairs", "0"), "--pairs must be at least 1"),
        (("--budget-ms", "9", "--modes", "best"), "unknown mode 'best'"),
        (("--budget-ms", "9", "--basis", "nowhere.npz"), "nowhere.npz"),
    ],
)
def test_wrong_use_is_named(immunogate: Command, own: Path, faces: Path, flags: Any, words: str) -> None:
    immunogate("calibrate", "clones", own, faces, *flags).refused(2, words)


def test_the_shipped_bundle_is_not_changed_in_place(immunogate: Command, faces: Path) -> None:
    immunogate("calibrate", "clones", faces, "--budget-ms", "9").refused(2, "not changed in place", "--dry-run")


def test_nobody_is_in_both_parts(faces: Path) -> None:
    from immunogate.cli.clone_measure import divided

    made = made_up(130)
    parts = divided(made, 60, 7, 0)
    assert len(parts.images) <= 60
    assert parts.enrolled.shape == parts.probes.shape == (7, 112, 112)
    setting = {image.tobytes() for image in parts.images}
    assert not setting & {image.tobytes() for image in (*parts.enrolled, *parts.probes)}
    rows = {image.tobytes(): row for row, image in enumerate(made.images)}
    for one, other in zip(parts.enrolled, parts.probes, strict=True):
        assert abs(rows[one.tobytes()] - rows[other.tobytes()]) == 1  # the two of one person


@pytest.fixture
def twin_parts(tiny_bundle: Bundle) -> tuple[Any, Bundle]:
    """Made-up checkpoints behind the tiny bundle's own eigenfaces."""
    torch = pytest.importorskip("torch")
    from immunogate.basis import load_basis
    from immunogate.networks.recognisers import RecogniserSpec
    from immunogate.networks.spectral import SpectralPurifier

    state = torch.get_rng_state()
    torch.manual_seed(1)
    recogniser = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 8, 8), torch.nn.Tanh(), torch.nn.Flatten(),
                                     torch.nn.Linear(4 * 14 * 14, 8))  # fmt: skip
    basis = load_basis(tiny_bundle.folder / "basis.npz")
    purifier = SpectralPurifier(torch.full((len(basis.basis) + 2,), 3.0), 16, gated=False).eval()
    torch.set_rng_state(state)
    spec = RecogniserSpec("made up", lambda: recogniser, 112, 112, 0, 127.5, 127.5, "any", 8, "a test")
    return SimpleNamespace(recogniser=recogniser.eval(), spec=spec, basis=basis, purifier=purifier), tiny_bundle


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["fixed", "expected", "threshold", "sample", "select"])
def test_attacks_go_through_the_defence_and_stay_in_bounds(twin_parts: Any, mode: str, one_torch_thread: Any) -> None:
    """More similar to nobody: each probe moves away from the enrolled picture, by its own twin."""
    torch = pytest.importorskip("torch")
    from immunogate.cli.clone_attacks import Strength, through_the_defence
    from immunogate.faces_file import faces_from_pixels
    from immunogate.networks.twin import TorchTwin

    sources, bundle = twin_parts
    images = made_up(3).images
    setting = Setting(mode, 8, 2 if mode == "select" else 1, 40)
    with one_torch_thread():
        found = through_the_defence(sources, bundle, setting, images[::2], images[1::2], Strength(3, 6, 2))
    assert found.dtype == np.uint8
    apart = np.abs(found.astype(int) - images[1::2])
    assert 0 < apart.max() <= 3
    twin = TorchTwin(sources.recogniser, sources.spec, sources.basis, "expected", 40, sources.purifier)
    with torch.no_grad():
        known, clean, after = (
            twin(torch.from_numpy(faces_from_pixels(some))) for some in (images[::2], images[1::2], found)
        )
    assert bool(((known * after).sum(dim=1) < (known * clean).sum(dim=1)).all())


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.data
def test_on_real_networks_an_adaptive_attack_is_harder_than_a_replayed_one(
    immunogate: Command,
    real_bundle: Bundle,
    data_dir: Path,
    fit_and_kept_back: tuple[AlignedFaces, AlignedFaces],
    tmp_path: Path,
    one_torch_thread: Any,
) -> None:
    kept_back = fit_and_kept_back[1]
    assert kept_back.identities is not None
    np.savez(tmp_path / "faces.npz", images=kept_back.images, identities=kept_back.identities)
    checkpoints = (
        *("--basis", real_bundle.folder.parent / "basis.npz"),
        *("--recogniser", data_dir / "models" / "mobilefacenet_casia_112x96.pt"),
    )
    work = ("--rounds", "3", "--pairs", "12", "--steps", "3", "--components", "850")
    flags = ("--budget-ms", "60000", "--dry-run", "--json", *work, "--levels", "8", *checkpoints)
    with one_torch_thread():
        done = immunogate("calibrate", "clones", real_bundle.folder, tmp_path / "faces.npz", *flags)
    assert done.status == 0, done.err
    (row,) = json.loads(done.out)["settings"]
    assert row["name"] == "fixed, top 850"
    assert row["adaptive"]["of"] == 12
    assert row["adaptive"]["accepted"] <= row["replayed"]["accepted"] <= row["clean"]["accepted"]
    assert row["adaptive"]["accepted"] < row["clean"]["accepted"]
