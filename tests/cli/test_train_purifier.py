"""``immunogate train purifier``, and ``train basis --copies``: from the command to the files, to the end and not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from immunogate.basis import load_basis, save_basis
from immunogate.training.eigenbasis import fit_eigenbasis

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.recognisers import RECOGNISERS, RecogniserSpec, recogniser_spec  # noqa: E402 - needs torch
from immunogate.training.purifier import journal, trainer  # noqa: E402
from immunogate.training.purifier import run as loop  # noqa: E402

Command = Callable[..., Any]

PEOPLE, EACH = 20, 2
PATIENCE_S = 120.0
SMALL = {"width": 8, "batch": 4, "validation_share": 0.3, "attack_steps": 2}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal's own tests have it; importing it takes a while."""
    monkeypatch.setattr(journal, "_board", lambda folder, resumed_at: None)


def build() -> Any:
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(3, 4, 16, 16), nn.PReLU(4), nn.Flatten(), nn.Linear(4 * 7 * 6, 8))


@pytest.fixture(autouse=True)
def tiny_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RecogniserSpec("tiny", build, 112, 96, 8, 127.5, 128.0, "RGB", 8, "this test")
    monkeypatch.setitem(RECOGNISERS, "tiny", spec)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``faces.npz basis.npz tiny.pt gateface.pt``."""
    folder: Path = tmp_path_factory.mktemp("made")
    draw = np.random.default_rng(4)
    coarse = draw.integers(40, 216, (PEOPLE, 9, 9)).astype(np.float32).repeat(EACH, axis=0)
    coarse += draw.normal(0, 12, coarse.shape).astype(np.float32)
    large = [cv2.resize(picture, (112, 112), interpolation=cv2.INTER_CUBIC) for picture in coarse]
    images = np.clip(np.stack(large), 0, 255).astype(np.uint8)
    np.savez(folder / "faces.npz", images=images, identities=np.repeat([f"p{i}" for i in range(PEOPLE)], EACH))
    save_basis(folder / "basis.npz", fit_eigenbasis(images, 12))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        torch.save(build().state_dict(), folder / "tiny.pt")
        torch.save(recogniser_spec("gateface").build().state_dict(), folder / "gateface.pt")
    return folder


def words_for(made: Path, out: Path, recogniser: str, small: dict[str, Any]) -> list[str]:
    sets = [word for name, value in small.items() for word in ("--set", f"{name}={value}")]
    return ["train", "purifier", str(made / "faces.npz"), "--basis", str(made / "basis.npz"), "--recogniser",
            str(made / f"{recogniser}.pt"), "--recogniser-arch", recogniser, "--out", str(out), *sets]  # fmt: skip


@pytest.fixture
def train(immunogate: Command, made: Path, tmp_path: Path) -> Command:
    """A run of four steps in ``tmp_path / "run"``, with further flags."""

    def run(*flags: object, steps: int = 4, **changes: Any) -> Any:
        small = {**SMALL, **changes}
        return immunogate(*words_for(made, tmp_path / "run", "tiny", small), "--steps", steps,
                          "--validate-every", 2, *flags)  # fmt: skip

    return run


@pytest.fixture
def quick_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """For networks that take long to attack and are not what is asked about."""
    monkeypatch.setattr(loop, "validate", lambda twin, pairs: {"score": 0.5, "threshold": 0.5})
    monkeypatch.setattr(loop, "_draw", lambda *arguments: None)


def state(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def test_a_run_leaves_its_files_and_says_what_it_made(train: Command, tmp_path: Path) -> None:
    done = train("--json", "--device", "cpu")
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert report["out"] == str(tmp_path / "run" / "purifier.pt")
    assert (report["steps"], report["settings"]["steps"], report["settings"]["width"]) == (4, 4, 8)
    assert 0 <= report["best_score"] <= 1
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["checkpoint.pt", "last.pt", "log.jsonl", "purifier.pt"]
    held = state(tmp_path / "run" / "purifier.pt")
    assert (held["architecture"], held["gated"]) == ("spectral", False)
    learned = sum(value.numel() for name, value in held["spectral"].items() if name != "scale")
    assert report["parameters"] == learned
    kinds = [(line["step"], line["kind"]) for line in map(json.loads, (tmp_path / "run/log.jsonl").open())]
    assert kinds == [(2, "validation"), (4, "train"), (4, "validation")]
    assert "step 2: clean" in done.err


def test_words_for_people(train: Command, tmp_path: Path) -> None:
    done = train(steps=2)
    assert done.out.startswith(f"{tmp_path / 'run' / 'purifier.pt'}: the best of 2 steps")
    assert "faces to learn from" in done.err


def test_a_run_is_not_overwritten_and_goes_on_with_resume(train: Command, tmp_path: Path) -> None:
    assert train().status == 0
    before = state(tmp_path / "run" / "checkpoint.pt")["purifier"]
    train().refused(2, "holds a training run", "--resume", "another --out")
    after = state(tmp_path / "run" / "checkpoint.pt")["purifier"]
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    train("--resume", "--learning-rate", 0.5).refused(2, "trained with learning_rate = 0.002, now it is 0.5")
    train("--resume", steps=6).refused(2, "trained with steps = 4, now it is 6")
    done = train("--resume", "--json")
    assert (done.status, json.loads(done.out)["steps"]) == (0, 4)


def test_resume_without_a_run_says_so(train: Command, tmp_path: Path) -> None:
    train("--resume").refused(2, "checkpoint.pt")
    assert not (tmp_path / "run" / "purifier.pt").exists()


@pytest.mark.usefixtures("quick_validation")
def test_a_file_of_settings_and_flags_over_it(train: Command, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("architecture = 'compact'\nrehearsal = 'average'\nestimator = 'reinforce'\nclones = 9\n")
    done = train("--config", config, "--clones", 3, "--json", steps=2)
    settings = json.loads(done.out)["settings"]
    assert (settings["architecture"], settings["estimator"], settings["clones"]) == ("compact", "reinforce", 3)
    assert state(tmp_path / "run" / "purifier.pt")["architecture"] == "compact"


@pytest.mark.usefixtures("quick_validation")
def test_paper_exact_sets_what_was_published(train: Command, tmp_path: Path) -> None:
    done = train("--paper-exact", "--architecture", "compact", "--clones", 2, "--json", steps=1)
    assert done.status == 0, done.err
    settings = json.loads(done.out)["settings"]
    assert (settings["paper_exact"], settings["estimator"], settings["attack"]) == (True, "reinforce", "fgsm")
    assert (settings["architecture"], settings["clones"], settings["most_eps"]) == ("compact", 2, 5.1)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--set", "width"), ("--set 'width'", "NAME=VALUE")),
        (("--set", "wide=3"), ("'wide=3' names no setting", "width")),
        (("--set", "width=3.5"), ("width must be of type int",)),
        (("--set", "gated=maybe"), ("gated must be of type bool",)),
        (("--set", "clean=nan"), ("clean must be in",)),
        (("--estimator", "reinforce"), ("live rehearsal", "--rehearsal average")),
        (("--architecture", "huge"), ("unknown architecture 'huge'",)),
        (("--clones", 1), ("clones must be in 2",)),
        (("--device", "tpu"), ("unknown device 'tpu'",)),
        (("--threads", -1), ("--threads must be 1 or more, got -1",)),
        (("--threads", 0), ("--threads must be 1 or more, got 0",)),
        (("--components", 0), ("0",)),
        (("--components", 13), ("12 eigenfaces", "13")),
        (("--config", "none.toml"), ("none.toml",)),
        (("--recogniser-arch", "mobilefacenet"), ("as mobilefacenet does not fit",)),
        (("--set", "validation_share=0.01"), ("both sides of the split",)),
    ],
)
def test_wrong_use_is_refused_and_nothing_is_written(
    train: Command, tmp_path: Path, flags: tuple[str, object], words: tuple[str, ...]
) -> None:
    train(*flags).refused(2, *words)
    assert not (tmp_path / "run").exists()


def test_faces_that_do_not_say_whose_they_are(train: Command, made: Path, immunogate: Command, tmp_path: Path) -> None:
    with np.load(made / "faces.npz") as content:
        np.savez(tmp_path / "faces.npz", images=content["images"])
    words = words_for(made, tmp_path / "run", "tiny", SMALL)
    words[2] = str(tmp_path / "faces.npz")
    immunogate(*words).refused(2, "identities")


def test_a_run_that_diverges_ends_with_status_1_and_can_be_resumed(
    train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = trainer.losses, []

    def broken(*arguments: Any) -> Any:
        found = real(*arguments)
        calls.append(1)
        return type(found)(found.total * (float("nan") if len(calls) > 3 else 1.0), *list(vars(found).values())[1:])

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "losses", broken)
        train().refused(1, "not finite at step 3", "resume", "--learning-rate")
    held = state(tmp_path / "run" / "checkpoint.pt")
    assert held["step"] == 2
    assert all(bool(torch.isfinite(value).all()) for value in held["purifier"].values())
    assert train("--resume").status == 0


def test_a_second_interrupt_ends_at_once_without_a_traceback(
    train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def struck_twice(*arguments: Any) -> Any:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second one was not heard")

    monkeypatch.setattr(trainer, "losses", struck_twice)
    done = train()
    assert done.status == 130
    assert done.err.splitlines()[-1] == "immunogate: interrupted; nothing was left half written"
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_ctrl_c_saves_and_says_how_to_go_on(made: Path, tmp_path: Path) -> None:
    """A real process behind a real network, struck in the middle of a long run."""
    small = {**SMALL, "batch": 2}
    words = words_for(made, tmp_path / "run", "gateface", small)
    command = [sys.executable, "-m", "immunogate", *words, "--steps", "100000", "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + PATIENCE_S
        log = tmp_path / "run" / "log.jsonl"
        while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert out == ""
    held = state(tmp_path / "run" / "checkpoint.pt")
    assert err.splitlines()[-1] == f"stopped at step {held['step']} of 100000; go on with --resume"
    assert held["step"] >= 10


def test_copies_add_jittered_faces_to_a_basis(immunogate: Command, made: Path, tmp_path: Path) -> None:
    def fitted(name: str, *flags: object) -> Any:
        words = ("train", "basis", made / "faces.npz", "--components", 30, "--out", tmp_path / name, "--no-picture")
        done = immunogate(*words, "--json", *flags)
        assert done.status == 0, done.err
        return json.loads(done.out), load_basis(tmp_path / name)

    report, basis = fitted("two.npz", "--copies", 2)
    assert report["faces"] == basis.samples == 3 * PEOPLE * EACH
    again, other, plain = (fitted(name, *flags)[1] for name, flags in (
        ("again.npz", ("--copies", 2)), ("seed.npz", ("--copies", 2, "--seed", 1)), ("plain.npz", ())
    ))  # fmt: skip
    assert np.array_equal(again.basis, basis.basis)
    assert not np.array_equal(other.basis, basis.basis)
    assert plain.samples == PEOPLE * EACH
    assert basis.explained()[-1] < plain.explained()[-1]  # copies are harder to explain than the faces themselves


def test_fewer_copies_than_none_are_refused(immunogate: Command, made: Path, tmp_path: Path) -> None:
    words = ("train", "basis", made / "faces.npz", "--components", 5, "--out", tmp_path / "b.npz")
    immunogate(*words, "--copies", -1).refused(2, "--copies must be 0 or more, got -1")
