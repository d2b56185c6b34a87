"""Old records go, the rest verifies, and only what was pruned may be missing at the beginning."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kill_writer import frame_of

from immunogate.errors import UsageError
from immunogate.runtime.audit.log import AuditLog, Entry
from immunogate.runtime.audit.reading import AuditReader, Wanted, moment
from immunogate.runtime.audit.retention import Limits, Pruned, prune
from immunogate.runtime.audit.settle import Settlement
from immunogate.runtime.audit.verify import Verification, verify

Tamper = Callable[..., None]
RECORDS, DAY = 10, 86_400.0
Clock = Callable[[float], None]


def verified(path: Path, expected: str | None = None) -> Verification:
    with AuditReader(path) as reader:
        return verify(reader, expected)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    def set_to(wall: float) -> None:
        monkeypatch.setattr("immunogate.runtime.audit.records.time.time", lambda: wall)

    return set_to


def test_age_takes_the_oldest_and_the_rest_verifies(path: Path, clock: Clock) -> None:
    head = "{}:{}".format(*verified(path).head)
    now = time.time()
    clock(now + 5 * DAY)
    with AuditLog(path) as audit:
        audit.append([Entry("actuation", {"new": True})])
        assert prune(audit, Limits(days=6), now + 5 * DAY) == Pruned()
        assert prune(audit, Limits(days=3), now + 5 * DAY) == Pruned(RECORDS, 0)
    found = verified(path)
    assert (found.problem, found.records, found.first, found.anchor) == ("", 2, RECORDS + 1, RECORDS)
    assert verified(path, head).problem == "", "a head that is the anchor by now"
    assert verified(path, f"{RECORDS}:{'0' * 64}").problem_at == RECORDS


def test_all_may_go_and_the_chain_goes_on(path: Path) -> None:
    with AuditLog(path) as audit:
        assert prune(audit, Limits(days=1), time.time() + 2 * DAY).records == RECORDS
        audit.append([Entry("actuation", {})])
        assert prune(audit, Limits(days=1), time.time() + 2 * DAY).records == 2
    found = verified(path)
    assert (found.problem, found.records, found.head[0]) == ("", 1, RECORDS + 3)


def test_a_young_record_keeps_all_behind_it(path: Path, clock: Clock) -> None:
    now = time.time()
    with AuditLog(path) as audit:
        clock(now + 1000 * DAY)  # a clock that was wrong for one record
        audit.append([Entry("actuation", {})])
        clock(now)
        audit.append([Entry("actuation", {})])
        assert prune(audit, Limits(days=1), now + 9 * DAY).records == RECORDS
        assert prune(audit, Limits(megabytes=1e-6), now).records > 0, "the limit of size asks no clock"
    assert verified(path).problem == ""


def test_size_takes_the_oldest_until_the_file_fits(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with AuditLog(path) as audit:
        audit.append([Entry("actuation", {"filler": "x" * 1000, "number": n}) for n in range(400)])
        assert prune(audit, Limits(megabytes=0.2)).records > 150
        assert prune(audit, Limits(megabytes=0.2)) == Pruned()
    assert path.stat().st_size < 220_000, "pages are given back"
    found = verified(path)
    assert found.problem == ""
    with AuditReader(path) as reader:
        numbers = [record.data()["number"] for record, _ in reader.rows() if "number" in record.data()]
    assert numbers == list(range(numbers[0], 400))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ends SET anchor_sequence = 3, anchor_digest = (SELECT digest FROM records WHERE sequence = 3)",
        "UPDATE ends SET anchor_sequence = 0",
    ],
)
def test_a_beginning_cut_off_by_other_means_shows(path: Path, tamper: Tamper, statement: str) -> None:
    tamper(statement)
    tamper("DELETE FROM records WHERE sequence <= 3")
    assert verified(path).problem


def test_an_anchor_moved_after_pruning_shows(path: Path, tamper: Tamper) -> None:
    with AuditLog(path) as audit:
        audit.append([Entry("actuation", {"filler": "x" * 9000})] * 20)
        prune(audit, Limits(megabytes=0.12))
    first = verified(path).first
    assert first > 1
    tamper("UPDATE ends SET anchor_sequence = ?, anchor_digest = (SELECT digest FROM records WHERE sequence = ?)",
           first, first)  # fmt: skip
    tamper("DELETE FROM records WHERE sequence = ?", first)
    assert "no record tells" in verified(path).problem


def test_nothing_of_a_pruned_person_is_left_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with AuditLog(path) as audit:
        Settlement(audit, audit.context({}), 60_000.0).settle(frame_of(0, "d-0"))
        assert prune(audit, Limits(days=1), time.time() + 2 * DAY).records == 1
    assert b'"ann"' not in path.read_bytes()


@pytest.mark.parametrize("limits", [{"days": 0}, {"days": float("nan")}, {"megabytes": -1}, {"crop_days": 1e9}])
def test_limits_out_of_range_are_wrong_use(limits: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="must be above 0"):
        Limits(**limits)


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (Wanted(), 10),
        (Wanted(kind="run"), 1),
        (Wanted(outcome="allow"), 3),
        (Wanted(person="ann", outcome="deny"), 3),
        (Wanted(person="eve"), 0),
        (Wanted(since=moment("2020-01-01")), 10),
        (Wanted(until=moment("2020-01-01T00:00:00Z")), 0),
        (Wanted(since=moment("2999-01-01T01:00:00+02:00")), 0),
    ],
)
def test_records_are_chosen_by_what_is_wanted(path: Path, wanted: Wanted, count: int) -> None:
    with AuditReader(path) as reader:
        assert sum(wanted.has(record.data()) for record, _ in reader.rows()) == count


@pytest.mark.parametrize("text", ["yesterday", "", "2026-13-01"])
def test_what_is_no_time_is_wrong_use(text: str) -> None:
    with pytest.raises(UsageError, match="no time"):
        moment(text)
