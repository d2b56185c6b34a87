from __future__ import annotations

from typing import Any

import pytest

from immunogate.errors import UsageError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from immunogate.training.processes import Processes  # noqa: E402 - needs torch


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As on a machine with so many GPUs."""

    def make(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)

    return make


def test_one_process_has_it_all_and_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = Processes.from_environment()
    assert alone == Processes(0, 1)
    assert alone.leads
    assert (alone.any_asks(True), alone.any_asks(False), alone.from_leader(0.1)) == (True, False, 0.1)
    assert not torch.distributed.is_initialized()


def test_one_process_leaves_gradients_and_buffers_alone() -> None:
    network = torch.nn.BatchNorm1d(3)
    Processes().sum_gradients(network)
    Processes().average_buffers(network)
    assert network.weight.grad is None
    assert torch.equal(network.running_var, torch.ones(3))


def test_the_device_is_as_asked_else_the_process_s_own_gpu(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(0)
    assert Processes().device() == torch.device("cpu")
    assert Processes().device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="no CUDA device") as caught:
        Processes().device("cuda")
    assert "--device cpu" in caught.value.mend
    for unknown in ("tpu", "cuda:1", ""):
        with pytest.raises(UsageError, match="unknown device"):
            Processes().device(unknown)
    gpus(2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert Processes().device() == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Processes(1, 2).device("cuda") == torch.device("cuda", 1)
    assert Processes(1, 2).device("cpu") == torch.device("cpu")
