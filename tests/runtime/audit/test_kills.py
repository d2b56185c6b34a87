"""Killed at any instant, a gate loses at most the decision in flight, and sets nothing off without a record."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

CODE = (
    "import dataclasses, json, sys; from pathlib import Path; from kill_writer import kill_again_and_again as kill\n"
    "print(json.dumps(dataclasses.asdict(kill(Path(sys.argv[1]), int(sys.argv[2]), 7, pruning=sys.argv[3] == 'yes'))))"
)
MEMORY = Path("/dev/shm")


def kills_of(folder: Path, kills: int, pruning: str = "no") -> dict[str, Any]:
    """In a process of its own, which forks and has no threads."""
    tools = str(Path(__file__).parents[3] / "tools")
    command = [sys.executable, "-c", CODE, str(folder / "audit.db"), str(kills), pruning]
    path = ":".join(entry for entry in (tools, *sys.path) if entry)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    counts: dict[str, Any] = json.loads(done.stdout)
    return counts


@pytest.mark.parametrize(("kills", "pruning"), [(30, "no"), (8, "yes")])
def test_a_killed_writer_leaves_a_whole_chain(kills: int, pruning: str) -> None:
    # In memory where there is such a folder: what a kill leaves does not depend on the disk, and waiting for one does.
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        counts = kills_of(Path(folder), kills, pruning)
    assert counts["problems"] == []
    assert counts["kills"] == kills
    assert counts["pruned"] > 0 if pruning == "yes" else counts["decisions"] >= counts["heard_of"] > kills


@pytest.mark.slow
def test_two_hundred_kills_on_the_disk(tmp_path: Path) -> None:
    counts = kills_of(tmp_path, 200)
    assert counts["problems"] == []
    assert counts["kills"] == 200
    assert counts["set_off"] > 0
