"""The attacks beside a public library's, small, as a user runs the comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

RunScript = Callable[..., dict[str, Any]]


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.torch
def test_attacks_are_as_strong_as_the_library_s(run_script: RunScript) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed (extra evaluate)")
    document = run_script("attack_strength")
    attacks = document["measured"]["attacks"]
    assert all(target["met"] for target in document["targets"]), document["targets"]
    assert len(document["targets"]) == 4
    for name in ("PGD", "APGD"):
        ours, theirs = (attacks[f"{name}, {where}"]["scores"] for where in ("here", "library"))
        assert all(mine <= other + 0.05 for mine, other in zip(ours, theirs, strict=True)), name
        assert max(theirs) < document["measured"]["clean"]["mean"]  # the library's attack works at all
