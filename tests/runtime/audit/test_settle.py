"""The order: recorded, durable, then set off. Whatever fails before is a deny and sets nothing off."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kill_writer import frame_of

from immunogate.errors import AuditError, RelayError, UsageError
from immunogate.runtime.audit.log import AuditLog
from immunogate.runtime.audit.reading import AuditReader
from immunogate.runtime.audit.relay import CommandRelay
from immunogate.runtime.audit.retention import Limits
from immunogate.runtime.audit.settle import Settlement
from immunogate.structs import Decision


class Relay:
    """Counts, and looks with a reader of its own whether the record is there when it is set off."""

    name = "counting"

    def __init__(self, path: Path, error: Exception | None = None) -> None:
        self.path, self.error, self.recorded = path, error, list[str]()

    def __call__(self, decision: Decision) -> None:
        with AuditReader(self.path) as reader:
            self.recorded.append(reader.decision(decision.decision_id).data()["decision"]["outcome"])
        if self.error:
            raise self.error


def settlement(path: Path, relay: Any, **options: Any) -> tuple[AuditLog, Settlement]:
    audit = AuditLog(path)
    return audit, Settlement(audit, "0" * 64, options.pop("max_age_ms", 60_000.0), relay, **options)


def actuations(path: Path) -> list[str]:
    with AuditReader(path) as reader:
        found = [record.data() for record, _ in reader.rows()]
    return [one["result"] for one in found if one["kind"] == "actuation"]


def test_the_relay_is_set_off_for_an_allow_after_its_record_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    relay = Relay(path)
    audit, settle = settlement(path, relay)
    outcomes = [settle.settle(frame_of(n, f"d-{n}", o)).decisions[0].outcome for n, o in enumerate(OUTCOMES)]
    audit.close()
    assert outcomes == list(OUTCOMES)
    assert relay.recorded == ["allow"]
    assert actuations(path) == ["done"]


OUTCOMES = ("deny", "allow", "alarm")


def failing(_: Any) -> Any:
    raise AuditError("database or disk is full")


@pytest.mark.parametrize("error", [AuditError("the disk is full"), OSError("no"), MemoryError()])
def test_what_can_not_be_recorded_is_denied_and_sets_nothing_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = tmp_path / "a.db"
    relay = Relay(path)
    audit, settle = settlement(path, relay)

    def fail(entries: Any) -> Any:
        raise error

    monkeypatch.setattr(audit, "append", fail)
    results = [settle.settle(frame_of(n, f"d-{n}", o)) for n, o in enumerate(OUTCOMES)]
    audit.close()
    assert [result.decisions[0].outcome for result in results] == ["deny", "deny", "alarm"]
    assert [result.decisions[0].reason for result in results] == ["match", "not_recorded", "match"]
    assert all("not recorded" in result.decisions[0].detail for result in results)
    assert relay.recorded == []
    track = results[1].looks[0].track
    assert (track.outcome, track.person, track.agreeing) == ("deny", None, 0)


def test_a_gate_recovers_once_the_disk_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    audit, settle = settlement(path, None)
    with monkeypatch.context() as patch:
        patch.setattr(audit, "append", failing)
        assert settle.settle(frame_of(0, "d-0")).decisions[0].outcome == "deny"
    assert settle.settle(frame_of(1, "d-1")).decisions[0].outcome == "allow"
    audit.close()


def test_an_allow_whose_record_took_too_long_sets_nothing_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    relay = Relay(path)
    audit, settle = settlement(path, relay, max_age_ms=80.0)
    append = audit.append

    def slow(entries: Any) -> Any:
        time.sleep(0.1)
        return append(entries)

    monkeypatch.setattr(audit, "append", slow)
    decision = settle.settle(frame_of(0, "d-0")).decisions[0]
    audit.close()
    assert (decision.outcome, decision.reason) == ("deny", "stale")
    assert relay.recorded == []
    assert actuations(path) == ["withheld"]


@pytest.mark.parametrize("error", [RelayError("it is stuck"), ZeroDivisionError()])
def test_a_relay_that_fails_is_recorded_and_the_gate_goes_on(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "a.db"
    audit, settle = settlement(path, Relay(path, error))
    assert "relay" in settle.settle(frame_of(0, "d-0")).decisions[0].detail
    settle.settle(frame_of(1, "d-1"))
    audit.close()
    assert actuations(path) == ["failed", "failed"]


def test_a_decision_is_recorded_once_only(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    relay = Relay(path)
    audit, settle = settlement(path, relay)
    frame = frame_of(0, "d-0")
    settle.settle(frame)
    assert settle.settle(frame).decisions[0].reason == "not_recorded"
    audit.close()
    assert len(relay.recorded) == 1


def test_decisions_of_one_frame_are_all_recorded_or_all_denied(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    audit, settle = settlement(path, None)
    one, two = frame_of(0, "d-0"), frame_of(0, "d-0")
    both = replace(one, looks=one.looks + two.looks, decisions=one.decisions + two.decisions)
    assert [decision.reason for decision in settle.settle(both).decisions] == ["not_recorded"] * 2
    audit.close()
    with AuditReader(path) as reader:
        assert reader.count() == 0


def test_old_records_go_when_a_run_begins(path: Path) -> None:
    audit, settle = settlement(path, None, limits=Limits(megabytes=1e-6))
    settle.begin()
    audit.close()
    with AuditReader(path) as reader:
        assert reader.ends().anchor[0] == 11


WRITE = "import os, sys; open(sys.argv[1], 'w').write(repr((sys.argv[2:], sorted(os.environ))))"


def test_a_command_gets_its_words_as_they_are_and_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMMUNOGATE_EVIDENCE_KEY", "secret")
    out = tmp_path / "told"
    relay = CommandRelay(f"{sys.executable} -c \"{WRITE}\" {out} '$HOME; rm x' '*'", 20)
    relay(frame_of(0, "d-0").decisions[0])
    told = out.read_text()
    assert "['$HOME; rm x', '*']" in told
    assert "IMMUNOGATE_DECISION_ID" in told
    assert "EVIDENCE_KEY" not in told


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import time; time.sleep(60)"])
def test_a_command_that_fails_or_hangs_is_an_error(code: str) -> None:
    start = time.monotonic()
    with pytest.raises(RelayError, match=r"status 3|did not end within"):
        CommandRelay(f'{sys.executable} -c "{code}"', 0.3 if "sleep" in code else 20)(frame_of(0, "d").decisions[0])
    assert time.monotonic() - start < 20


def test_what_a_hanging_command_started_is_killed_too(tmp_path: Path) -> None:
    with pytest.raises(RelayError):
        CommandRelay(f"/bin/sh -c '(sleep 0.8; touch {tmp_path}/late) & sleep 9'", 0.2)(frame_of(0, "d").decisions[0])
    time.sleep(1.0)
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize(
    ("command", "timeout"), [("", 2), ("/no/such/thing", 2), ("'open", 2), ("true", 0), ("true", 99)]
)
def test_a_command_that_can_not_be_is_wrong_use(command: str, timeout: float) -> None:
    with pytest.raises(UsageError):
        CommandRelay(command, timeout)
