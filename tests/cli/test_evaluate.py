"""``immunogate evaluate`` on the bundle that ships: a few steps at a few faces, and everything that it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.bundle import open_bundle
from immunogate.calib.robustness import protocols
from immunogate.calib.robustness.document import read_document
from immunogate.default_models import shipped_bundle
from immunogate.faces_file import AlignedFaces
from immunogate.files import sha256_of_file

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytestmark = [pytest.mark.data, pytest.mark.torch]

Command = Callable[..., Any]
STEPS = 2


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep torch on one thread: on a busy machine its waiting threads cost more than they give here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick protocol with hardly any budget."""
    quick = replace(
        protocols.PROTOCOLS["quick"], pairs=2, faces_of_one=2, oblivious=("FGSM",), steps=STEPS, dodging_levels=(8,),
        impersonation_levels=(8,), black_level=8, square_queries=2, square_pairs=2, timed=2,
    )  # fmt: skip
    monkeypatch.setitem(protocols.PROTOCOLS, "quick", quick)


@pytest.fixture(scope="module")
def photos(aligned_faces: AlignedFaces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos of each of ten people. The bundle may have seen them: nothing is concluded from these tests."""
    names = aligned_faces.identities
    assert names is not None
    people, counts = np.unique(names, return_counts=True)
    rows = np.concatenate([np.flatnonzero(names == person)[:2] for person in people[counts > 1][:10]])
    path = tmp_path_factory.mktemp("evaluate") / "photos.npz"
    np.savez(path, images=aligned_faces.images[rows], identities=names[rows])
    return path


@pytest.fixture
def evaluate(immunogate: Command, photos: Path, tmp_path: Path) -> Command:
    def run(*flags: Any, bundle: Path | None = None) -> Any:
        return immunogate("evaluate", bundle or shipped_bundle(), photos, "--quick", "--out", tmp_path / "out", *flags)

    return run


def test_the_shipped_bundle_is_attacked_and_the_result_is_written(evaluate: Command, tmp_path: Path) -> None:
    done = evaluate("--json")
    document = read_document(tmp_path / "out" / "robustness.json")
    assert json.loads(done.out) == document.to_dict()
    assert done.status == (1 if document.verdict.status == "FAULTY" or document.verdict.flags else 0), done.err
    assert [row.key for row in document.configurations] == ["none", "fixed", "bundle"]
    assert {row.tier for row in document.rows} == {"controls", "oblivious", "adaptive", "black box"}
    own = [row for row in document.rows if row.configuration == "bundle" and row.tier == "adaptive"]
    assert all(row.twin is not None and row.deployed is not None for row in own)
    assert {(row.goal, row.eps) for row in own} == {
        (goal, eps) for goal in ("dodging", "impersonation") for eps in (8.0, 64.0)
    }
    # Twin and deployed gate agree on what was found, which is what makes the twin worth attacking.
    assert all(abs(row.twin.accepted - row.deployed.accepted) <= 1 for row in own if row.twin and row.deployed)
    assert not (tmp_path / "out" / "state").exists()
    assert document.bundle.manifest_sha256 == open_bundle(shipped_bundle()).sha256
    assert document.setting.photos == "photos.npz"
    assert any("not to be quoted" in words for words in document.verdict.words)
    assert any("not liveness" in words for words in document.verdict.words)
    again = evaluate()
    again.refused(2, "is there already")


@pytest.mark.slow
def test_a_stopped_command_says_how_to_go_on_and_does(
    evaluate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from immunogate.cli import evaluate_progress

    tiers = ("--tiers", "adaptive", "--modes", "bundle")
    seen: list[float] = []

    def stop(bar: Any, done: float) -> None:
        seen.append(done)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluate_progress.Bar, "share", stop)
        done = evaluate(*tiers)
    assert done.status == 130
    assert "--resume" in done.err.splitlines()[-1]
    assert (tmp_path / "out" / "state" / "search.npz").is_file()
    evaluate(*tiers, "--resume", "--seed", 1).refused(2, "another seed")
    assert evaluate(*tiers, "--resume").status in (0, 1)
    document = read_document(tmp_path / "out" / "robustness.json")
    assert {(row.configuration, row.tier) for row in document.rows} == {("bundle", "adaptive")}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--tiers", "adaptve"), ("--tiers 'adaptve'", "black box")),
        (("--modes", "selct"), ("--modes 'selct'", "threshold")),
        (("--pairs", "0"), ("--pairs",)),
        (("--resume",), ("nothing to go on with",)),
        (("--recogniser", "nowhere.pt"), ("nowhere.pt",)),
    ],
)
def test_wrong_use_is_refused(evaluate: Command, flags: tuple[str, ...], words: tuple[str, ...]) -> None:
    evaluate(*flags).refused(2, *words)


def test_a_rate_that_was_not_calibrated_is_refused(evaluate: Command) -> None:
    evaluate("--fmr", "0.5").refused(1, "no threshold for a false match rate of 0.5")


def test_photos_without_names_are_refused(immunogate: Command, photos: Path, tmp_path: Path) -> None:
    with np.load(photos) as arrays:
        np.savez(tmp_path / "nameless.npz", images=arrays["images"])
    done = immunogate("evaluate", shipped_bundle(), tmp_path / "nameless.npz", "--quick", "--out", tmp_path / "out")
    done.refused(2, "does not say whose faces")


def test_a_bundle_whose_threshold_comes_from_these_photos_is_flagged(
    evaluate: Command, photos: Path, tmp_path: Path
) -> None:
    bundle = _changed(tmp_path / "bundle", f"faces (sha256 {sha256_of_file(photos)[:16]})", 0.53)
    done = evaluate("--tiers", "controls", "--modes", "none", bundle=bundle)
    assert done.status == 1
    assert "Flagged: the photos evaluated on are those" in done.out


def test_a_bundle_with_a_loose_threshold_is_flagged(evaluate: Command, tmp_path: Path) -> None:
    bundle = _changed(tmp_path / "bundle", "attacked faces", 0.05)
    done = evaluate("--tiers", "controls", "--modes", "none", bundle=bundle)
    assert done.status == 1
    assert "fitted on attacked or other data" in done.out


def _changed(folder: Path, source: str, threshold: float) -> Path:
    """The shipped bundle with another calibration."""
    shutil.copytree(shipped_bundle(), folder)
    bundle = open_bundle(folder)
    calibration = bundle.calibration()
    rows = [replace(row, threshold=threshold) for row in calibration.thresholds]
    bundle.with_calibration(replace(calibration, thresholds=rows, source=source))
    return folder
