"""``immunogate train recogniser --robust``: what it writes, what goes on, and what does not go together."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.basis import Eigenbasis, save_basis
from immunogate.cli.train_recogniser import add_parser
from immunogate.errors import CheckpointError, UsageError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.gateface import GateFace  # noqa: E402 - needs torch
from immunogate.networks.purifier import load_purifier  # noqa: E402
from immunogate.networks.recognisers import load_recogniser  # noqa: E402

Run = Callable[..., int]
SHORT = ("--steps", 2, "--batch", 4, "--validate-every", 2, "--views", 1, "--set", "width=16", "--set", "jitter=0.5")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Faces of twenty people, a basis and a recogniser of random weights."""
    folder, draw = tmp_path_factory.mktemp("given"), np.random.default_rng(3)
    coarse = draw.integers(40, 216, (20, 14, 14), np.uint8).repeat(2, axis=0)
    images = coarse.repeat(8, axis=1).repeat(8, axis=2) + draw.integers(0, 9, (40, 112, 112), np.uint8)
    np.savez(folder / "faces.npz", images=images, identities=np.repeat([f"j{n:02}" for n in range(20)], 2))
    rows = np.linalg.qr(draw.standard_normal((12544, 8)))[0].T.astype(np.float32)
    basis = Eigenbasis(np.zeros(12544, np.float32), rows, np.linspace(9, 1, 8, dtype=np.float32), 50.0, 40)
    save_basis(folder / "basis.npz", basis)
    torch.manual_seed(0)
    torch.save(GateFace().state_dict(), folder / "gateface.pt")
    return {name: folder / file for name, file in
            (("faces", "faces.npz"), ("basis", "basis.npz"), ("recogniser", "gateface.pt"))}  # fmt: skip


@pytest.fixture
def command(given: dict[str, Path], tmp_path: Path) -> Run:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())

    def call(*words: Any, robust: bool = True) -> int:
        behind = ("--basis", given["basis"], "--recogniser", given["recogniser"], "--recogniser-arch", "gateface")
        every = (
            "recogniser",
            given["faces"],
            "--out",
            tmp_path / "run",
            *(("--robust", *behind, *SHORT) if robust else ()),
        )
        arguments = parser.parse_args([str(word) for word in (*every, *words)])
        status: int = arguments.run(arguments)
        return status

    return call


def test_a_recogniser_of_the_same_architecture_and_its_purifier_are_written(
    command: Run, given: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    assert command("--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["settings"]["hold"] is True
    learned = load_recogniser(Path(report["recogniser"]), "gateface")[0].state_dict()
    before = load_recogniser(given["recogniser"], "gateface")[0].state_dict()
    assert any(not torch.equal(learned[name], before[name]) for name in learned)
    load_purifier(Path(report["purifier"]))
    with pytest.raises(UsageError, match="--resume"):
        command()
    assert command("--resume") == 0


def test_the_recogniser_alone_has_no_purifier_beside_it(command: Run, tmp_path: Path, capsys: Any) -> None:
    assert command("--no-purifier", "--json") == 0
    assert json.loads(capsys.readouterr().out)["purifier"] is None
    assert not (tmp_path / "run" / "purifier.pt").exists()


def test_a_given_purifier_is_held_unless_they_learn_together(
    command: Run, given: dict[str, Path], tmp_path: Path
) -> None:
    assert command() == 0
    first = load_purifier((tmp_path / "run").rename(tmp_path / "first") / "purifier.pt").state_dict()
    for words, same in (((), True), (("--together",), False)):
        assert command("--purifier", tmp_path / "first" / "purifier.pt", *words) == 0
        run = tmp_path / "run"
        found = load_purifier(run / "last.pt").state_dict()
        assert all(torch.equal(found[name], first[name]) for name in first) is same
        run.rename(tmp_path / f"run-{same}")


def test_what_does_not_go_together_is_refused_by_name(command: Run, given: dict[str, Path], tmp_path: Path) -> None:
    refused: list[tuple[tuple[Any, ...], bool, str]] = [
        (("--until", 3), True, "--until is for distilling"),
        (("--teacher", given["recogniser"], "--basis", given["basis"]), False, "--basis is for --robust"),
        ((), False, "without a teacher"),
        (("--robust",), False, "needs --recogniser"),
        (("--no-purifier", "--together"), True, "exclude each other"),
        (("--teacher", given["recogniser"], "--teacher-arch", "ir50"), True, "as ir50 does not fit"),
    ]
    for words, robust, message in refused:
        with pytest.raises((UsageError, CheckpointError), match=message):
            command(*words, robust=robust)
    assert not (tmp_path / "run").exists()
