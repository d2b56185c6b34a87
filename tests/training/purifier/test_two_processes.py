"""Two real processes over gloo take the steps of one."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed"),
]

WORKER = Path(__file__).with_name("worker.py")
PATIENCE_S = 240.0
STEPS = 6
LIMIT = 0.01
"""Largest distance of weights from those of one process, as a share of how far they moved: sums have another order,
and a sign step of an attack or of Adam's goes the other way where a gradient is rounding alone."""

JOBS: dict[str, dict[str, Any]] = {
    "live": {},
    "average": {"rehearsal": "average", "estimator": "relaxed"},
    "compact": {"architecture": "compact"},
}


@pytest.fixture(scope="module")
def made(
    basis: Any, recogniser: Any, faces: Any, pairs: Any, few: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Any]]:
    """What both processes left: the folder of the loop, and the results of each."""
    folder: Path = tmp_path_factory.mktemp("two")
    network, spec = recogniser
    fields = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec) if field.name != "build"}
    jobs = {name: dataclasses.asdict(few(validate_every=5, **change)) for name, change in JOBS.items()}
    torch.save(
        {"basis": basis, "network": network, "spec": fields, "faces": faces, "pairs": pairs, "jobs": jobs,
         "steps": STEPS},
        folder / "parts.pt",
    )  # fmt: skip
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder)],
            env={**shared, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    try:
        for process in processes:
            _, err = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, err
    finally:
        for process in processes:
            process.kill()
    return folder, [torch.load(folder / f"result-{rank}.pt", weights_only=True) for rank in (0, 1)]


def flat(state: dict[str, Any]) -> Any:
    return torch.cat([value.double().flatten() for value in state.values()])


@pytest.mark.parametrize("job", JOBS)
def test_both_processes_have_the_same_weights_and_buffers(made: Any, job: str) -> None:
    first, second = (result[job] for result in made[1])
    for kind in ("own", "average"):
        for name, value in first[kind].items():
            assert torch.equal(value, second[kind][name]), name


@pytest.mark.parametrize("job", ["live", "average"])
def test_two_processes_take_the_steps_of_one(made: Any, begin: Any, few: Any, job: str) -> None:
    trainer = begin(few(**JOBS[job]))
    start = flat(trainer.purifier.state_dict()).clone()
    for _ in range(STEPS):
        trainer.take_step()
    for kind, network in (("own", trainer.purifier), ("average", trainer.averaged)):
        alone, together = flat(network.state_dict()), flat(made[1][0][job][kind])
        assert float((alone - start).norm()) > 1e-4
        assert float((alone - together).norm()) < LIMIT * float((alone - start).norm()), kind


def test_one_process_s_wish_to_stop_is_everybody_s_and_the_run_goes_on_bit_for_bit(made: Any) -> None:
    folder, results = made
    for result in results:
        assert result["loop"]["told"] == {"whole": list(range(1, 11)), "stopped": [1, 2, 3, 4],
                                          "resumed": list(range(5, 11))}  # fmt: skip
        assert result["loop"]["best"] == [results[0]["loop"]["best"][0]] * 2
        whole, resumed = result["loop"]["states"]
        for part in ("purifier", "average", "rehearsal"):
            assert whole[part].keys() == resumed[part].keys()
            assert all(torch.equal(value, resumed[part][name]) for name, value in whole[part].items())
    assert results[0]["loop"]["files"] == ["checkpoint-1.pt", "checkpoint.pt", "last.pt", "purifier.pt"]
    logs = [(folder / name / "log.jsonl").read_text(encoding="utf-8") for name in ("whole", "stopped")]
    assert logs[0] == logs[1]


def test_the_pool_of_a_process_is_not_for_another_number_of_processes(made: Any, begin: Any, few: Any) -> None:
    from immunogate.errors import CheckpointError

    with pytest.raises(CheckpointError, match="as many processes as before"):
        begin(few()).restore(made[0] / "stopped" / "checkpoint.pt")
