"""``immunogate train recogniser`` by its own parser: weights, state and log; going on; wrong use."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from immunogate.cli.train_recogniser import add_parser
from immunogate.errors import InputError, UsageError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.recognisers import load_recogniser  # noqa: E402 - needs torch

Run = Callable[..., int]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy pictures of forty people, two of each."""
    draw = np.random.default_rng(3)
    coarse = draw.integers(40, 216, (40, 14, 14), np.uint8).repeat(2, axis=0)
    images = coarse.repeat(8, axis=1).repeat(8, axis=2) + draw.integers(0, 9, (80, 112, 112), np.uint8)
    path = tmp_path_factory.mktemp("faces") / "faces.npz"
    np.savez(path, images=images, identities=np.repeat([f"j{number:02}" for number in range(40)], 2))
    return path


@pytest.fixture(scope="module")
def taught_by(random_teacher: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(random_teacher[0].state_dict(), path)
    return path


@pytest.fixture
def command(faces: Path, taught_by: Path, tmp_path: Path) -> Run:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())

    def call(*words: Any, out: Any = tmp_path / "student.pt") -> int:
        short = ("--steps", 3, "--batch", 4, "--set", "block=1", "--set", "validate_every=2", "--components", 20)
        every = ("recogniser", faces, "--teacher", taught_by, "--out", out, *short, *words)
        arguments = parser.parse_args([str(word) for word in every])
        status: int = arguments.run(arguments)
        return status

    return call


def test_weights_state_and_log_are_written(command: Run, tmp_path: Path, capsys: Any) -> None:
    assert command("--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["teacher"]["cosine"] == pytest.approx(1, abs=1e-4)
    assert (report["settings"]["steps"], report["settings"]["block"]) == (3, 1)
    lines = [json.loads(line) for line in (tmp_path / "student.log.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines] == [2, 3]
    assert report["cosine"] == max(line["cosine"] for line in lines)
    load_recogniser(tmp_path / "student.pt", "gateface")
    assert (tmp_path / "student.state.pt").is_file()


def test_a_finished_run_is_not_run_again_and_other_settings_are_refused(
    command: Run, tmp_path: Path, capsys: Any
) -> None:
    assert command() == 0
    before = (tmp_path / "student.log.jsonl").read_bytes()
    assert command() == 0
    assert (tmp_path / "student.log.jsonl").read_bytes() == before
    assert "going on at step 3 of 3" in capsys.readouterr().err
    with pytest.raises(UsageError, match="was trained with relation = 10"):
        command("--set", "relation=5")


def test_a_run_stops_where_told_goes_on_and_begins_another(command: Run, tmp_path: Path) -> None:
    def steps(name: str) -> list[int]:
        lines = (tmp_path / f"{name}.log.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line)["step"] for line in lines]

    assert command("--until", 1) == 0
    first = torch.load(tmp_path / "student.pt", weights_only=True)
    assert steps("student") == [1]
    assert command() == 0
    assert steps("student") == [1, 2, 3]
    torch.save(first, tmp_path / "first.pt")
    slow = ("--set", "pace=1e-8", "--set", "learning_rate=1e-8", "--until", 1)
    assert command("--begin", tmp_path / "first.pt", *slow, out=tmp_path / "second.pt") == 0
    second = torch.load(tmp_path / "second.pt", weights_only=True)
    for name in ("embed.1.weight", "embed.1.bias", "place.0.weight"):  # the others are brought to one length
        torch.testing.assert_close(second[name], first[name], atol=1e-5, rtol=1e-4)
    with pytest.raises(UsageError, match="was trained with source"):
        command("--begin", tmp_path / "student.pt", *slow, out=tmp_path / "second.pt")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--set", "speed=3"), "names no setting.*one of steps, batch"),
        (("--set", "reuse=many"), "reuse must be of type int"),
        (("--set", "mixed=1.5"), r"mixed must be in 0 \.\. 1"),
        (("--steps", 0), "steps must be in"),
        (("--teacher-arch", "resnet"), "no recogniser architecture 'resnet'"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_written(command: Run, tmp_path: Path, words: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        command(*words)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_ending_and_faces_without_names_are_refused(command: Run, faces: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.pt"):
        command(out=tmp_path / "student.onnx")
    with np.load(faces) as there:
        np.savez(tmp_path / "nameless.npz", images=there["images"])
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    words = ["recogniser", str(tmp_path / "nameless.npz"), "--teacher", "t.pt", "--out", str(tmp_path / "s.pt")]
    arguments = parser.parse_args(words)
    with pytest.raises(InputError, match="does not say whose faces"):
        arguments.run(arguments)
