"""One training run and its steps: bit for bit after a resume, exact about what moves and what does not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from immunogate.errors import CheckpointError, UsageError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.networks.memory import Memory  # noqa: E402 - needs torch
from immunogate.networks.purifier import load_purifier  # noqa: E402
from immunogate.training.processes import Processes  # noqa: E402
from immunogate.training.purifier.beginning import new_purifier  # noqa: E402
from immunogate.training.purifier.settings import PAPER  # noqa: E402
from immunogate.training.purifier.trainer import DivergedError, Trainer  # noqa: E402

KINDS: dict[str, dict[str, Any]] = {
    "spectral, live": {},
    "spectral, views": {"views": 4, "softened": 0.5},
    "spectral, adapting": {"adapt": 1e-3},
    "recogniser behind a held purifier": {"adapt": 1e-3, "hold": True, "relation": 5.0, "varied": 0.5},
    "recogniser alone": {"architecture": "none", "adapt": 1e-3, "relation": 5.0},
    "spectral, average": {"rehearsal": "average"},
    "spectral, relaxed": {"estimator": "relaxed", "rehearsal": "average", "attack": "fgsm"},
    "compact, live": {"architecture": "compact", "estimator": "relaxed"},
    "compact, reinforce": {"architecture": "compact", "estimator": "reinforce", "rehearsal": "average"},
}


def expect_same(first: Any, second: Any) -> None:
    """Nested dicts and lists of tensors and numbers, the same bits."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for name, value in first.items():
            expect_same(value, second[name])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            expect_same(one, other)
    else:
        assert first == second


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_takes_the_same_steps_bit_for_bit(begin: Any, few: Any, tmp_path: Path, kind: str) -> None:
    settings = few(**KINDS[kind])
    whole, first, second = begin(settings), begin(settings), begin(settings)
    values = [whole.take_step() for _ in range(6)]
    assert [first.take_step() for _ in range(4)] == values[:4]  # two of warm-up, two of the rehearsal
    first.save(tmp_path / "a.pt")
    first.take_step()
    torch.rand(7)  # whatever the process has drawn meanwhile
    second.restore(tmp_path / "a.pt")
    assert second.step == 4
    assert [second.take_step() for _ in range(2)] == values[4:]
    expect_same(second.checkpoint(), whole.checkpoint())


def test_another_seed_takes_other_steps(begin: Any, few: Any) -> None:
    one, other = begin(few()), begin(few(seed=4))
    assert one.take_step()["total"] != other.take_step()["total"]
    assert not torch.equal(one.purifier.generator.weight, other.purifier.generator.weight)


def test_a_run_with_another_setting_is_refused_by_name(begin: Any, few: Any, tmp_path: Path) -> None:
    begin(few()).save(tmp_path / "a.pt")
    changes: dict[str, Any] = {
        "learning_rate": 0.5, "steps": 9, "seed": 4, "most_eps": 7.0, "gated": True, "width": 17, "clean": 0.3,
        "architecture": "compact", "rehearsal": "average", "batch": 7, "jitter": 0.5,
    }  # fmt: skip
    for name, value in changes.items():
        other = begin(few(**{name: value}))
        with pytest.raises(UsageError, match=rf"a\.pt was trained with {name} = .*, now it is {value}"):
            other.restore(tmp_path / "a.pt")
        assert other.step == 0
    begin(few(patience=3, validate_every=1)).restore(tmp_path / "a.pt")


def test_a_file_that_is_no_checkpoint_of_a_run_is_refused(begin: Any, few: Any, tmp_path: Path) -> None:
    trainer = begin(few())
    trainer.export(tmp_path / "purifier.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    good = trainer.checkpoint()
    torch.save({**good, "settings": 3}, tmp_path / "settings.pt")
    torch.save({**good, "purifier": {}}, tmp_path / "weights.pt")
    torch.save({**good, "rehearsal": {"left": torch.zeros(4)}}, tmp_path / "pool.pt")
    torch.save({**good, "optimiser": None}, tmp_path / "optimiser.pt")
    refusals = {
        "purifier": "lacks", "text": "no torch file", "settings": "does not fit", "weights": "does not fit",
        "pool": "rows, not 6", "optimiser": "does not fit",
    }  # fmt: skip
    for name, words in refusals.items():
        with pytest.raises(CheckpointError, match=words):
            begin(few()).restore(tmp_path / f"{name}.pt")
    with pytest.raises(UsageError, match=r"none\.pt"):
        trainer.restore(tmp_path / "none.pt")


def test_a_share_of_no_face_is_refused(begin: Any, few: Any) -> None:
    with pytest.raises(UsageError, match="a batch of 2"):
        begin(few(batch=2), Processes(0, 3))


def test_the_recogniser_and_the_basis_stay_as_they_were(begin: Any, few: Any, recogniser: Any, basis: Any) -> None:
    network, mean, rows = copy.deepcopy(recogniser[0].state_dict()), basis.mean.copy(), basis.basis.copy()
    trainer = begin(few())
    frozen = copy.deepcopy(trainer.twin.recogniser.state_dict())
    start = copy.deepcopy(trainer.purifier.state_dict())
    for _ in range(4):
        trainer.take_step()
    expect_same(network, recogniser[0].state_dict())
    expect_same(frozen, trainer.twin.recogniser.state_dict())
    expect_same(frozen, trainer.average.recogniser.state_dict())
    assert (basis.mean == mean).all()
    assert (basis.basis == rows).all()
    moved = [name for name, value in trainer.purifier.state_dict().items() if not torch.equal(value, start[name])]
    assert set(start) - set(moved) == {"scale"}


def test_a_recogniser_that_adapts_is_a_copy_whose_statistics_stay(
    begin: Any, few: Any, recogniser: Any, tmp_path: Path
) -> None:
    given = copy.deepcopy(recogniser[0].state_dict())
    trainer = begin(few(adapt=1e-2, warmup_steps=0, average=0.0))
    targets = trainer.rehearsal.batch(0).targets.clone()  # the pool lives on
    for _ in range(3):
        trainer.take_step()
    expect_same(given, recogniser[0].state_dict())
    trainer.export_recogniser(tmp_path / "recogniser.pt")
    adapted = torch.load(tmp_path / "recogniser.pt", weights_only=True)
    assert adapted.keys() == given.keys()
    same = {name for name in given if torch.equal(given[name], adapted[name])}
    kept = {"0.bias", "2.weight"}  # the BatchNorm behind has the convolution's offset; slopes of the PReLU do not learn
    assert same == kept | {name for name in given if "running" in name or "tracked" in name}
    again, planes = copy.deepcopy(recogniser[0]), torch.randn(3, 3, 112, 96)
    again.load_state_dict(adapted)
    with torch.no_grad():
        torch.testing.assert_close(again(planes), trainer.average.recogniser.recogniser(planes), rtol=1e-4, atol=1e-5)
    again = begin(few(adapt=1e-2, warmup_steps=0)).rehearsal.batch(0).targets
    assert torch.equal(targets, again)  # of the original, whatever the copy has learned


def test_a_held_purifier_stays_and_the_recogniser_behind_it_learns(begin: Any, few: Any) -> None:
    trainer = begin(few(adapt=1e-2, hold=True, warmup_steps=0))
    purifier, recogniser = (copy.deepcopy(part.state_dict()) for part in (trainer.purifier, trainer.twin.recogniser))
    for _ in range(3):
        trainer.take_step()
    expect_same(purifier, trainer.purifier.state_dict())
    expect_same(purifier, trainer.averaged.state_dict())
    learned = trainer.twin.recogniser.state_dict()
    assert not any(torch.equal(recogniser[name], learned[name]) for name in learned if "weight" in name)


def test_a_recogniser_alone_is_attacked_and_taught_without_purification(begin: Any, few: Any, tmp_path: Path) -> None:
    trainer = begin(few(architecture="none", adapt=1e-2, warmup_steps=0))
    assert trainer.purifier is None
    faces = trainer.rehearsal.batch(0).clean
    with torch.no_grad():
        torch.testing.assert_close(trainer.average(faces), trainer.average.embed_views(faces))
    trainer.export(tmp_path / "purifier.pt")
    assert not (tmp_path / "purifier.pt").exists()
    with pytest.raises(UsageError, match="no purifier in this run"):
        begin(few(architecture="none", adapt=1e-2), beginning=begin(few()).purifier)


def test_another_recogniser_may_teach(basis: Any, recogniser: Any, faces: Any, few: Any) -> None:
    network, spec = recogniser
    other = copy.deepcopy(network)
    with torch.no_grad():
        other[4].weight.mul_(-1)
        other[4].bias.mul_(-1)
    settings = few(adapt=1e-2, warmup_steps=0)
    own = Trainer(basis, network, spec, faces, settings).rehearsal.batch(0).targets
    taught = Trainer(basis, network, spec, faces, settings, teacher=(other, spec)).rehearsal.batch(0).targets
    torch.testing.assert_close(taught, -own)


def test_nothing_touches_the_global_generator(begin: Any, few: Any) -> None:
    state = torch.get_rng_state()
    begin(few(architecture="compact")).take_step()
    assert torch.equal(torch.get_rng_state(), state)


def _followed(trainer: Trainer) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """State dicts: the average before a step, the purifier and the average after it."""
    before = copy.deepcopy(trainer.averaged.state_dict())
    trainer.take_step()
    return before, trainer.purifier.state_dict(), trainer.averaged.state_dict()


def test_the_average_follows_weights_buffers_and_memory_slots(begin: Any, few: Any) -> None:
    trainer = begin(few(architecture="compact"))
    for decay in (0.1, 2 / 11):  # (1 + step) / (10 + step): early on it follows faster
        before, own, after = _followed(trainer)
        for name, value in after.items():
            if value.is_floating_point():
                torch.testing.assert_close(value, decay * before[name] + (1 - decay) * own[name])
            else:
                assert torch.equal(value, own[name])
    names = [name for name in after if name.endswith(("running_mean", "running_var", "memory.units.weight"))]
    assert len(names) > 10
    assert all(not torch.equal(after[name], before[name]) for name in names)
    assert int(after["encoder.layers.2.bn1.num_batches_tracked"]) == 2


def test_the_average_as_published_skips_buffers(begin: Any, few: Any) -> None:
    """The slots of the memory are parameters in the published code, and are averaged there too."""
    settings = few(**{**PAPER, "architecture": "compact"})
    trainer = begin(settings)
    buffers = {name for name, _ in trainer.averaged.named_buffers()}
    before, own, after = _followed(trainer)
    for name, value in after.items():
        assert torch.equal(value, before[name]) == (name in buffers), name
    assert any(not torch.equal(own[name], before[name]) for name in buffers)


def test_the_average_ends_at_the_stated_decay(begin: Any, few: Any) -> None:
    trainer = begin(few(average=0.3, steps=50))
    for _ in range(5):
        before, own, after = _followed(trainer)
    torch.testing.assert_close(after["own"], 0.3 * before["own"] + 0.7 * own["own"])


def test_a_loss_that_is_not_a_number_ends_the_run_and_changes_no_weight(begin: Any, few: Any, tmp_path: Path) -> None:
    trainer = begin(few())
    trainer.take_step()
    trainer.save(tmp_path / "a.pt")
    with torch.no_grad():
        trainer.purifier.generator.bias[3] = float("nan")
    spoilt = copy.deepcopy(trainer.purifier.state_dict())
    with pytest.raises(DivergedError, match="not finite at step 1") as caught:
        trainer.take_step()
    assert "resume" in caught.value.mend
    after = trainer.purifier.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in spoilt.items() if name != "generator.bias")
    again = begin(few())
    again.restore(tmp_path / "a.pt")
    again.take_step()


def test_training_as_published_takes_a_step(begin: Any, few: Any) -> None:
    trainer = begin(few(**{**PAPER, "batch": 2, "clones": 3, "warmup_steps": 0}))
    memory = trainer.purifier.pca_layer.memory
    assert isinstance(memory, Memory)
    assert (memory.paper_exact, memory.temperature) == (True, 1.0)
    slots = memory.units.weight.clone()
    found = trainer.take_step()
    assert found["total"] > 0
    left_alone = (memory.units.weight - 0.999 * slots).abs().amax(dim=1) < 1e-6
    assert int(left_alone.sum()) >= 126  # two faces choose at most two slots; the others decay


def test_what_is_exported_is_the_average_and_loads(begin: Any, few: Any, tmp_path: Path) -> None:
    for architecture in ("spectral", "compact"):
        for gated in (True, False):
            trainer = begin(few(architecture=architecture, gated=gated))
            trainer.take_step()
            trainer.export(tmp_path / "p.pt")
            loaded = load_purifier(tmp_path / "p.pt")
            assert (loaded.architecture, loaded.components, loaded.gated) == (architecture, 20, gated)
            expect_same(dict(loaded.state_dict()), dict(trainer.averaged.state_dict()))


@pytest.mark.parametrize("kind", ["spectral, live", "compact, reinforce"])
def test_bf16_rounds_networks_and_never_the_products_with_the_basis(begin: Any, few: Any, kind: str) -> None:
    fine, coarse = (begin(few(**KINDS[kind], precision=precision, warmup_steps=0)) for precision in ("fp32", "bf16"))
    seen: list[Any] = []
    for trainer in (fine, coarse):
        trainer.twin.act = _noting(trainer.twin.act, seen)
        trainer.take_step()
    if kind.startswith("spectral"):
        assert seen[1][0].dtype == torch.float32
        assert torch.equal(seen[1][1], seen[0][1])  # coefficients
        assert not torch.equal(seen[1][2], seen[0][2])  # antibodies
        torch.testing.assert_close(seen[1][2], seen[0][2], atol=0.02, rtol=0)
    assert all(part.dtype == torch.float32 for part in seen[1])
    assert all(weight.dtype == torch.float32 for weight in coarse.purifier.parameters())


def _noting(act: Any, seen: list[Any]) -> Any:
    def noted(*parts: Any) -> Any:
        seen.append([part.detach().clone() for part in parts])
        return act(*parts)

    return noted


def test_training_lowers_the_loss_and_raises_the_cosine_under_attack(begin: Any, few: Any) -> None:
    settings = few(steps=60, warmup_steps=0, batch=12, learning_rate=0.02, width=32, jitter=0.0, most_eps=4.0)
    trainer = begin(settings)
    steps = [trainer.take_step() for _ in range(60)]

    def mean(name: str, part: slice) -> float:
        values: list[float] = [step[name] for step in steps[part]]
        return sum(values) / len(values)

    assert mean("total", slice(-10, None)) < 0.8 * mean("total", slice(5, 15))
    assert mean("identity", slice(-10, None)) < 0.8 * mean("identity", slice(5, 15))


def test_the_learning_rate_rises_and_falls(begin: Any, few: Any) -> None:
    trainer = begin(few(steps=1000, warmup_steps=0, learning_rate=0.1))
    rates = []
    for step in range(1001):
        trainer.step = step
        rates.append(0.1 * trainer._rise_and_fall())
    peak = rates.index(max(rates))
    assert 0.09 < rates[peak] <= 0.1
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[0] < 0.01
    assert rates[-1] == pytest.approx(0.001)


def test_an_untrained_network_is_the_same_for_the_same_seed(basis: Any, few: Any, faces: Any) -> None:
    for architecture in ("spectral", "compact"):
        first, second = (new_purifier(few(architecture=architecture), basis, faces).state_dict() for _ in range(2))
        expect_same(dict(first), dict(second))


def test_statistics_come_with_every_step(begin: Any, few: Any) -> None:
    trainer = begin(few(batch=12))
    trainer.take_step()
    trainer.take_step()
    found = trainer.take_step()  # the first of the rehearsal
    assert set(found) == {
        "total", "identity", "pixels", "size", "cosine_clean", "cosine_adaptive", "cosine_bare", "sparsity",
        "specificity", "mutation", "gradient",
    }  # fmt: skip
    assert -1 <= found["cosine_bare"] <= 1
    assert 0 <= found["sparsity"] <= 21
    assert found["gradient"] > 0


@pytest.mark.parametrize("architecture", ["spectral", "compact"])
def test_a_run_may_begin_with_a_trained_purifier(begin: Any, few: Any, tmp_path: Path, architecture: str) -> None:
    settings = few(architecture=architecture)
    first = begin(settings)
    first.take_step()
    first.export(tmp_path / "p.pt")
    trained = load_purifier(tmp_path / "p.pt")
    second = begin(few(architecture=architecture, seed=9), beginning=trained)
    for network in (second.purifier, second.averaged):
        expect_same(dict(network.state_dict()), dict(trained.state_dict()))
    before = copy.deepcopy(trained.state_dict())
    second.take_step()
    expect_same(dict(before), dict(trained.state_dict()))
    for change in ({"gated": True}, {"architecture": "compact" if architecture == "spectral" else "spectral"}):
        with pytest.raises(UsageError, match="another network"):
            begin(few(**{"architecture": architecture, **change}), beginning=trained)
    if architecture == "spectral":
        with pytest.raises(UsageError, match="width"):
            begin(few(width=17), beginning=trained)
