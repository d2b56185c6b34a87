"""``immunogate calibrate threshold``: what it measures, refuses and writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.bundle import Bundle, open_bundle, write_manifest
from immunogate.calib.known_people import used_in
from immunogate.cli.calibrate_measure import Asked
from immunogate.errors import UsageError
from immunogate.faces_file import AlignedFaces, faces_from_pixels, load_aligned_faces
from immunogate.files import sha256_of_file
from immunogate.structs import SIGNALS

Command = Callable[..., Any]


@pytest.fixture
def own(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the tiny bundle, in a mode that keeps three clones, so that all signals are there."""
    folder = Path(shutil.copytree(tiny_bundle.folder, tmp_path / "own"))
    manifest = tiny_bundle.manifest
    write_manifest(folder, replace(manifest, purifier=replace(manifest.purifier, mode="select"), calibration=None))
    return folder


def saved(path: Path, count: int = 60, **changes: Any) -> Path:
    """Two pictures each of smooth made-up people."""
    draw = np.random.default_rng(3)
    coarse = np.repeat(draw.integers(0, 256, (count, 14, 14)), 2, axis=0)
    people = np.kron(coarse, np.ones((1, 8, 8), np.int64))
    images = (people + draw.integers(-20, 21, people.shape)).clip(0, 255).astype(np.uint8)
    arrays = {"images": images, "identities": np.repeat([f"p{i}" for i in range(count)], 2)} | changes
    np.savez(path, **arrays)
    return path


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    return saved(tmp_path / "faces.npz")


def test_everything_is_measured_written_and_said(immunogate: Command, own: Path, faces: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "det.svg"
    done = immunogate("calibrate", "threshold", own, faces, "--json", "--plot", picture, "--false-alarms", "0.3")
    assert done.status == 0, done.err
    data = json.loads(done.out)
    calibration = open_bundle(own).calibration()
    assert [signal["name"] for signal in data["alarms"]["signals"]] == list(SIGNALS)
    assert calibration.alarms is not None
    assert calibration.alarms.asked == 0.3
    assert calibration.alarm == calibration.alarms.limit(SIGNALS[0])
    assert "jittered copies" in calibration.alarms.note
    for row in data["thresholds"]:
        assert row["fmr_upper"] == max(row["upper_of_pairs"], row["upper_of_people"])
    assert len(data["slices"]["parts"]) == 9
    assert "not sliced by pose" in data["slices"]["pose"]
    assert data["det"]["fmr"][0] > data["det"]["fmr"][-1]
    assert len(data["unsupported"]) + len(data["thresholds"]) == 3
    assert all("below 3/N" in words for words in data["unsupported"])
    assert "no earlier alarm limit" in data["unchecked"][0]
    assert picture.read_text(encoding="utf-8").startswith("<?xml")
    used = calibration.measured_with
    assert used is not None
    assert (used.mode, used.clones, used.keep, used.views, used.backend) == ("select", 32, 3, 1, "cpu")
    assert set(used.runners) == {"detector.onnx", "analyzer.onnx", "recogniser.onnx"}
    assert used.faces_sha256 == sha256_of_file(faces)
    assert used.salt == calibration.measured_on == open_bundle(own).manifest.embedding_hash()
    assert used.forced == []
    assert used_in(calibration, load_aligned_faces(faces))[0].all()
    text = immunogate("inspect", own).out
    assert "any of them" in text
    assert "bootstrap by person" in text


def test_the_gate_decides_by_all_limits(immunogate: Command, own: Path, faces: Path) -> None:
    from immunogate.cli import build_parser
    from immunogate.cli.run import policy_for
    from immunogate.cli.run_cameras import settled

    assert immunogate("calibrate", "threshold", own, faces).status == 0
    bundle = open_bundle(own)
    limits = bundle.calibration().alarms
    assert limits is not None
    plain = ["run", "--source", "0", "--fmr", "1e-2"]
    usual, other = (
        build_parser().parse_args(words) for words in (plain, [*plain, "--mode", "expected", "--threshold", "0.5"])
    )
    settled(usual)
    settled(other)
    policy = policy_for(bundle, usual)
    assert [policy.alarm, policy.clone_alarm, policy.frame_alarm] == [limits.limit(name) for name in SIGNALS]
    assert policy_for(bundle, other).clone_alarm is None  # limits of another mode


def test_a_changed_setting_asks_for_calibration_again(
    immunogate: Command, own: Path, faces: Path, empty_gallery: Path
) -> None:
    assert immunogate("calibrate", "threshold", own, faces).status == 0
    run = ("run", "--bundle", own, "--gallery", empty_gallery, "--source", "synthetic://?frames=2", "--fmr", "1e-2")
    manifest = open_bundle(own).manifest
    write_manifest(own, replace(manifest, purifier=replace(manifest.purifier, keep=2)))
    immunogate(*run).refused(1, "measured on other files or settings", "immunogate calibrate threshold")


@pytest.mark.parametrize("out", [False, True])
def test_rates_that_the_faces_do_not_support_are_refused_and_nothing_is_written(
    immunogate: Command, own: Path, faces: Path, tmp_path: Path, out: bool
) -> None:
    before = sha256_of_file(own / "manifest.json")
    flags = ("--out", tmp_path / "copy") if out else ()
    done = immunogate("calibrate", "threshold", own, faces, "--fmr", "1e-5", *flags)
    done.refused(2, "7080 comparisons", "do not support a false match rate of 1e-05", "3/N", "400,000 comparisons")
    assert sha256_of_file(own / "manifest.json") == before
    assert not (tmp_path / "copy").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"own", "faces.npz"}


def test_another_rate_is_measured_where_it_is_supported(immunogate: Command, own: Path, faces: Path) -> None:
    done = immunogate("calibrate", "threshold", own, faces, "--fmr", "0.05", "--json")
    assert done.status == 0, done.err
    rates = [row["fmr"] for row in json.loads(done.out)["thresholds"]]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 0.05


@pytest.mark.parametrize("wrong", [{"rates": (0.0,)}, {"rates": (0.2,)}, {"false_alarms": 0.0}, {"false_alarms": 0.5}])
def test_rates_out_of_range_are_wrong_use(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Asked(**wrong)


def test_a_picture_of_another_kind_is_refused_before_the_work(immunogate: Command, own: Path, faces: Path) -> None:
    immunogate("calibrate", "threshold", own, faces, "--plot", "det.gif").refused(2, "det.gif", ".png or .svg")


def test_one_picture_under_two_names_is_refused_by_name(immunogate: Command, own: Path, tmp_path: Path) -> None:
    with np.load(saved(tmp_path / "plain.npz")) as arrays:
        images = arrays["images"]
    images[100] = images[6]  # of p50 and p3
    wrong = saved(tmp_path / "wrong.npz", images=images)
    before = sha256_of_file(own / "manifest.json")
    immunogate("calibrate", "threshold", own, wrong).refused(
        1, "the same picture under two names", "p3 and p50", "--force"
    )
    assert sha256_of_file(own / "manifest.json") == before
    done = immunogate("calibrate", "threshold", own, wrong, "--force")
    assert done.status == 0, done.err
    assert "warning: forced: the same picture" in done.err
    used = open_bundle(own).calibration().measured_with
    assert used is not None
    assert "p3 and p50" in used.forced[0]
    assert "FORCED" in immunogate("inspect", own).out


@pytest.mark.torch
@pytest.mark.data
def test_attacked_faces_are_refused(
    immunogate: Command,
    real_bundle: Bundle,
    data_dir: Path,
    fit_and_kept_back: tuple[AlignedFaces, AlignedFaces],
    tmp_path: Path,
    one_torch_thread: Any,
) -> None:
    """Real faces, an eighth of them attacked on the real recogniser: it knows nothing of the purifier."""
    torch = pytest.importorskip("torch")
    from immunogate.networks.attacks import away_from_itself, deterministic, from_levels, pgd
    from immunogate.networks.recognisers import load_recogniser

    network, spec = load_recogniser(data_dir / "models" / "mobilefacenet_casia_112x96.pt", "mobilefacenet")

    def embed(points: Any) -> Any:
        return network(spec.prepare(points.reshape(-1, 1, 112, 112)))

    some = fit_and_kept_back[1]
    assert some.identities is not None
    images, attacked = some.images[:64].copy(), np.arange(0, 64, 8)
    clean = torch.from_numpy(faces_from_pixels(images[attacked]))
    with one_torch_thread():
        away = away_from_itself(deterministic(embed), clean).push
        found = pgd(embed, clean, away, from_levels(8), 4).numpy().reshape(-1, 112, 112)
    folder = Path(shutil.copytree(real_bundle.folder, tmp_path / "bundle"))
    np.savez(tmp_path / "clean.npz", images=images, identities=some.identities[:64])
    images[attacked] = np.rint((found + 1) * 127.5).clip(0, 255).astype(np.uint8)
    np.savez(tmp_path / "wrong.npz", images=images, identities=some.identities[:64])
    before = sha256_of_file(folder / "manifest.json")
    done = immunogate("calibrate", "threshold", folder, tmp_path / "wrong.npz")
    done.refused(1, "of 64 faces", "beyond the earlier alarm limit", "attacked")
    assert sha256_of_file(folder / "manifest.json") == before
    assert immunogate("calibrate", "threshold", folder, tmp_path / "clean.npz").status == 0
