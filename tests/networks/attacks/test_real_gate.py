"""The attacks on real networks: the deployed ones on their runner, and their torch twin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.bundle import Bundle
from immunogate.faces_file import AlignedFaces, faces_from_pixels
from immunogate.structs import PIXELS

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.data]

from immunogate.basis import load_basis  # noqa: E402 - needs torch
from immunogate.networks.attacks import Apgd, LinfBall, Target, deterministic, dodging, from_levels, search  # noqa: E402
from immunogate.networks.attacks.oracle import VerificationOracle  # noqa: E402
from immunogate.networks.attacks.square import square  # noqa: E402
from immunogate.networks.recognisers import load_recogniser  # noqa: E402
from immunogate.networks.twin import TorchTwin  # noqa: E402
from immunogate.runtime.chain import open_chain  # noqa: E402

PAIRS, LEVELS, QUESTIONS = 2, 4, 40


@pytest.fixture(scope="module")
def pairs(fit_and_kept_back: tuple[AlignedFaces, AlignedFaces]) -> tuple[Any, Any]:
    """(P, D) faces and as many other pictures of the same people, of whom nothing was fitted."""
    names = fit_and_kept_back[1].identities
    assert names is not None
    people, counts = np.unique(names, return_counts=True)
    rows = np.array([np.flatnonzero(names == person)[:2] for person in people[counts > 1][:PAIRS]])
    first, second = (faces_from_pixels(fit_and_kept_back[1].images[column]) for column in rows.T)
    return first, second


def test_black_box_and_white_box_attacks_lower_the_deployed_similarity(
    real_bundle: Bundle, data_dir: Path, pairs: tuple[Any, Any]
) -> None:
    faces, others = pairs
    with open_chain(real_bundle) as chain:

        def embed(asked: Any, rows: Any, numbers: Any) -> Any:
            found = chain.purifier.purify(asked, chain.purifier.key(list(numbers), list(rows))).faces
            return chain.recogniser.embed(found.reshape(-1, PIXELS))

        nobody = np.arange(PAIRS)
        templates = embed(others, nobody, nobody)
        oracle = VerificationOracle(embed, templates, -1.0, np.zeros(PAIRS, bool))
        clean = oracle.scores(faces, nobody)
        oracle.queries[:] = 0
        asked = square(oracle, faces, from_levels(LEVELS), QUESTIONS)
        assert asked.queries.tolist() == [QUESTIONS] * PAIRS
        assert bool((asked.scores < clean - 0.01).all())
        made = on_the_twin(real_bundle, data_dir, faces, templates)
        white = oracle.scores(made.points.numpy(), nobody)
    assert white == pytest.approx(made.scores.numpy(), abs=2e-3)  # what the twin says is what the gate says
    assert bool((white < asked.scores - 0.1).all())  # who knows more does better


def on_the_twin(bundle: Bundle, data_dir: Path, faces: Any, templates: Any) -> Any:
    network, spec = load_recogniser(data_dir / "models" / "mobilefacenet_casia_112x96.pt", "mobilefacenet")
    basis = load_basis(bundle.folder / "basis.npz")
    twin = TorchTwin(network, spec, basis, top_k=bundle.manifest.purifier.top_k)
    goal = dodging(torch.from_numpy(templates))
    ball = LinfBall(from_levels(LEVELS))
    return search(Target(deterministic(twin)), torch.from_numpy(faces), goal, ball, Apgd(6))
