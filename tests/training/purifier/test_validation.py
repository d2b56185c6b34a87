from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from immunogate.errors import InputError
from immunogate.faces_file import AlignedFaces

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.training.purifier.validation import embedded, validate, validation_pairs  # noqa: E402 - needs torch


def test_pairs_are_of_one_person_or_of_two(made_up: AlignedFaces) -> None:
    assert made_up.identities is not None
    order = np.random.default_rng(0).permutation(len(made_up))[:20]
    chosen = made_up.take(order)
    pairs, names = validation_pairs(chosen), chosen.identities
    assert names is not None
    genuine, impostors = pairs.genuine.numpy(), pairs.impostors.numpy()
    assert all(names[a] == names[b] and a != b for a, b in genuine)
    assert sorted(names[a] for a, _ in genuine) == [n for n in np.unique(names) if (names == n).sum() > 1]
    wanted = {(a, b) for a in range(20) for b in range(a + 1, 20) if names[a] != names[b]}
    assert {(int(a), int(b)) for a, b in impostors} == wanted
    assert len(impostors) == len(wanted)
    assert len(validation_pairs(chosen, most=2).genuine) == 2


def test_faces_that_can_not_be_compared_are_refused(made_up: AlignedFaces) -> None:
    with pytest.raises(InputError, match="identities"):
        validation_pairs(AlignedFaces(made_up.images))
    with pytest.raises(InputError, match="two people or more"):
        validation_pairs(made_up.take(np.array([0, 1, 2])))
    with pytest.raises(InputError, match="one with two faces"):
        validation_pairs(made_up.take(np.array([0, 3, 6])))


def test_rates_are_those_of_counting(begin: Any, few: Any, pairs: Any) -> None:
    defence = begin(few()).average
    found = validate(defence, pairs)
    clean = embedded(defence, pairs.faces).numpy()
    impostors = [float(clean[a] @ clean[b]) for a, b in pairs.impostors.tolist()]
    assert found["threshold"] == pytest.approx(np.quantile(impostors, 0.999), abs=1e-5)
    accepted = np.mean([clean[a] @ clean[b] >= found["threshold"] for a, b in pairs.genuine.tolist()])
    assert found["clean"] == pytest.approx(accepted)
    assert set(found) == {"clean", "adaptive_2", "adaptive_4", "bare_8", "threshold", "score"}
    rates = [value for name, value in found.items() if name not in ("threshold", "score")]
    assert found["score"] == pytest.approx(np.mean(rates))
    assert all(0 <= rate <= 1 for rate in rates)
    assert validate(defence, pairs) == found
