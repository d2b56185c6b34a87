"""What the record's tests share: made-up frames, and a record that a settlement wrote."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from kill_writer import frame_of

from immunogate.runtime.audit.log import AuditLog
from immunogate.runtime.audit.settle import Settlement

Tamper = Callable[..., None]
DECISIONS = 6


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written once, since every commit waits for the disk; see `path`."""

    class Relay:
        name = "none"

        def __call__(self, decision: object) -> None:
            return

    path = tmp_path_factory.mktemp("written") / "audit.db"
    with AuditLog(path) as audit:
        settlement = Settlement(audit, audit.context({"run": 1}), 60_000.0, Relay())
        settlement.begin()
        for number in range(DECISIONS):
            settlement.settle(frame_of(number, f"d-{number}", "allow" if number % 2 else "deny"))
    return path


@pytest.fixture
def path(written: Path, tmp_path: Path) -> Path:
    """A closed record: one run, six decisions (d-0 .. d-5) and what came of the relay for d-1, d-3, d-5."""
    return Path(shutil.copy(written, tmp_path / "audit.db"))


@pytest.fixture
def tamper(path: Path) -> Tamper:
    """Run SQL on the file, behind the gate's back."""

    def run(statement: str, *values: object) -> None:
        db = sqlite3.connect(path)
        with db:
            assert db.execute(statement, values).rowcount > 0
        db.close()

    return run
