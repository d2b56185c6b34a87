"""``immunogate demo`` and ``immunogate train demo-attacks``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from immunogate.bundle import Bundle
from immunogate.default_models import VARIABLE, shipped_bundle
from immunogate.demo.noise import SHIPPED, Perturbations, load_perturbations, save_perturbations
from immunogate.demo.scene import EDITION

pytest.importorskip("skimage")
pytest.importorskip("matplotlib")
Command = Callable[..., Any]


@pytest.fixture
def noise(tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random noise for the tiny bundle's recogniser."""
    draw = np.random.default_rng(0)
    pieces = draw.integers(-8, 9, (2, 2, 112, 112)).astype(np.int8)
    path = tmp_path / "noise.npz"
    save_perturbations(path, Perturbations(tiny_bundle.manifest.files["recogniser.onnx"].sha256, EDITION, *pieces))
    monkeypatch.setenv("IMMUNOGATE_DEMO_NOISE", str(path))
    return path


@pytest.mark.data
def test_the_demo_of_a_recogniser_of_random_weights_ends_with_the_failure_that_was_measured(
    immunogate: Command, tiny_bundle: Bundle, data_dir: Path, noise: Path, tmp_path: Path
) -> None:
    words = ("demo", "--bundle", tiny_bundle.folder, "--frames", "5", "--out", tmp_path / "out")
    done = immunogate(*words)
    assert done.status == 1, done.err
    assert "NOT as it should be" in done.out
    assert "act 4: the stranger" in done.out
    assert "of 5 frames" in done.out
    assert "no liveness detection" in done.out
    assert f"look at: {tmp_path / 'out' / 'demo.png'}" in done.err
    picture = cv2.imread(str(tmp_path / "out" / "demo.png"))
    assert picture is not None
    assert picture.shape[1] == 1500
    assert picture.std() > 20
    video = cv2.VideoCapture(str(tmp_path / "out" / "demo.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 4 * 5
    assert video.read()[1].shape == (528, 960, 3)


@pytest.mark.data
def test_json_says_the_same(
    immunogate: Command, tiny_bundle: Bundle, data_dir: Path, noise: Path, tmp_path: Path
) -> None:
    words = ("demo", "--bundle", tiny_bundle.folder, "--frames", "4", "--out", tmp_path, "--json", "--no-video")
    done = immunogate(*words)
    report = json.loads(done.out)
    assert done.status == (0 if report["as_hoped"] else 1)
    assert [act["act"] for act in report["acts"]] == [1, 2, 3, 4]
    for act in report["acts"]:
        assert sum(act["immunogate"]["outcomes"].values()) == act["frames"] == 4
    assert report["noise_levels"] == 8
    assert not (tmp_path / "demo.mp4").exists()


def test_noise_for_another_recogniser_says_how_to_make_it(
    immunogate: Command, tiny_bundle: Bundle, noise: Path, tmp_path: Path
) -> None:
    save_perturbations(noise, Perturbations("0" * 64, EDITION, *np.zeros((2, 1, 112, 112), np.int8)))
    done = immunogate("demo", "--bundle", tiny_bundle.folder, "--out", tmp_path)
    done.refused(1, "another recogniser", "immunogate train demo-attacks --recogniser")


def test_flags_that_do_not_go_together(immunogate: Command, tiny_bundle: Bundle) -> None:
    immunogate("demo", "--fresh").refused(2, "--fresh belongs to --real")
    immunogate("demo", "--real", "--json").refused(2, "--real makes its own bundle")


def test_frames_out_of_range(immunogate: Command, tiny_bundle: Bundle, noise: Path) -> None:
    immunogate("demo", "--bundle", tiny_bundle.folder, "--frames", "1").refused(2, "4 to 10000 frames")


def test_the_demo_on_real_faces_says_where_they_should_be(
    immunogate: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IMMUNOGATE_DATA", str(tmp_path / "nowhere"))
    immunogate("demo", "--real").refused(2, "development data", "IMMUNOGATE_DATA")


def test_without_the_extra_it_is_named(
    immunogate: Command, tiny_bundle: Bundle, noise: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    immunogate("demo", "--bundle", tiny_bundle.folder).refused(2, "scikit-image", "pip install 'immunogate[demo]'")


def test_the_demo_that_ships_goes_as_it_says_without_torch(subprocess_of_immunogate: Command, tmp_path: Path) -> None:
    if not (shipped_bundle() / "manifest.json").is_file() or not SHIPPED.is_file():
        pytest.skip("no bundle or no noise ships with this checkout yet")
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not here')\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in (VARIABLE, "IMMUNOGATE_DEMO_NOISE")}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "IMMUNOGATE_DATA": str(tmp_path / "nowhere"),
    }
    done = subprocess_of_immunogate(
        *("demo", "--frames", "18", "--no-video", "--out", tmp_path / "out"), env=environment, cwd=tmp_path
    )
    assert done.status == 0, done.out + done.err
    assert "4 of 4 acts went as they should" in done.out


@pytest.mark.data
@pytest.mark.torch
def test_attacks_are_made_for_the_bundles_recogniser_and_no_other_checkpoint(
    immunogate: Command, real_bundle: Bundle, data_dir: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    checkpoint, out = data_dir / "models" / "mobilefacenet_casia_112x96.pt", tmp_path / "noise.npz"
    words = ("train", "demo-attacks", "--bundle", real_bundle.folder, "--recogniser-arch", "mobilefacenet")
    threads = torch.get_num_threads()
    few = ("--pieces", "2", "--steps", "6", "--batch", "2", "--frames", "6", "--out", out, "--json")
    done = immunogate(*words, "--recogniser", checkpoint, *few)
    assert done.status == 0, done.err
    assert torch.get_num_threads() == threads
    report = json.loads(done.out)
    sha256 = real_bundle.manifest.files["recogniser.onnx"].sha256
    assert load_perturbations(out, sha256).levels() <= 8
    assert report["dodge"]["similarity"] < 0.5
    assert report["impersonate"]["similarity"] > 0.3
    state = torch.load(checkpoint, weights_only=True)
    key = next(name for name in state if name.endswith("conv.weight"))
    state[key] = state[key] * -1
    torch.save(state, tmp_path / "other.pt")
    immunogate(*words, "--recogniser", tmp_path / "other.pt", *few).refused(2, "embed the same face differently")
