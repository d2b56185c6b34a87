"""Whatever is changed, taken out, moved or added behind the gate's back shows, at the first record that does not."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunogate.errors import AuditError, UsageError
from immunogate.runtime.audit.log import AuditLog, Entry
from immunogate.runtime.audit.reading import AuditReader
from immunogate.runtime.audit.records import Record, link
from immunogate.runtime.audit.schema import MIGRATIONS, VERSION
from immunogate.runtime.audit.verify import Verification, verify

Tamper = Callable[..., None]
RECORDS = 10  # one run, six decisions, three of the relay


def verified(path: Path, expected: str | None = None) -> Verification:
    with AuditReader(path) as reader:
        return verify(reader, expected)


def rows_of(path: Path) -> list[tuple[Record, Any]]:
    with AuditReader(path) as reader:
        return list(reader.rows())


def test_an_untouched_record_is_whole(path: Path) -> None:
    found = verified(path)
    assert (found.problem, found.records, found.head[0], found.anchor) == ("", RECORDS, RECORDS, 0)
    assert found.kinds == {"run": 1, "decision": 6, "actuation": 3}
    assert verified(path, f"{found.head[0]}:{found.head[1]}").problem == ""


@pytest.mark.parametrize(
    ("statement", "first_misfit"),
    [
        ('UPDATE records SET body = replace(body, \'"person":"ann"\', \'"person":"eve"\') WHERE sequence = 4', 4),
        ("UPDATE records SET body = CAST(replace(body, 'deny', 'allo') AS BLOB) WHERE sequence = 2", 2),
        ("UPDATE records SET digest = zeroblob(32) WHERE sequence = 5", 5),
        ("UPDATE records SET digest = 'text' WHERE sequence = 5", 5),
        ("DELETE FROM records WHERE sequence = 1", 1),
        ("DELETE FROM records WHERE sequence = 7", 7),
        (f"DELETE FROM records WHERE sequence = {RECORDS}", RECORDS),
        ("UPDATE records SET sequence = 99 WHERE sequence = 3", 3),
        ("UPDATE records SET decision_id = 'd-99' WHERE decision_id = 'd-1'", 3),
        ("UPDATE records SET decision_id = NULL WHERE decision_id = 'd-1'", 3),
        ("INSERT INTO records SELECT 99, digest, NULL, body FROM records WHERE sequence = 10", 11),
        ("UPDATE ends SET head_sequence = 9", 11),
        ("UPDATE ends SET head_digest = zeroblob(32)", 11),
        ("UPDATE ends SET anchor_digest = zeroblob(32)", None),
        ("UPDATE ends SET file_id = zeroblob(16)", None),
        ("UPDATE ends SET file_id = 7", None),
        ("DELETE FROM ends", None),
        ("UPDATE contexts SET body = CAST('{\"run\":2}' AS BLOB)", 1),
        ("DELETE FROM contexts", 1),
        ("INSERT INTO evidence VALUES (2, 'k', zeroblob(12), zeroblob(32))", 2),
    ],
)
def test_tampering_is_named_at_the_first_record_that_does_not_fit(
    path: Path, tamper: Tamper, statement: str, first_misfit: int | None
) -> None:
    tamper(statement)
    found = verified(path)
    assert found.problem
    assert found.problem_at == first_misfit
    assert found.records < RECORDS or first_misfit in (None, RECORDS, RECORDS + 1, 2)


def test_two_records_that_change_places_show(path: Path, tamper: Tamper) -> None:
    tamper("UPDATE records SET sequence = 1000 WHERE sequence = 2")
    tamper("UPDATE records SET sequence = 2 WHERE sequence = 4")
    tamper("UPDATE records SET sequence = 4 WHERE sequence = 1000")
    assert verified(path).problem_at == 2


def test_a_record_that_fits_its_own_digest_does_not_fit_the_next(path: Path, tamper: Tamper) -> None:
    before, changed = rows_of(path)[2][0], rows_of(path)[3][0]
    body = changed.body.replace(b'"done"', b'"DONE"').replace(b'"deny"', b'"DENY"')
    assert body != changed.body
    tamper("UPDATE records SET body = ?, digest = ? WHERE sequence = 4", body, link(before.digest, body))
    assert verified(path).problem_at == 5


def test_a_cut_off_end_with_a_mended_head_shows_against_a_noted_head(path: Path, tamper: Tamper) -> None:
    noted = "{}:{}".format(*verified(path).head)
    tamper("DELETE FROM records WHERE sequence > 6")
    tamper("UPDATE ends SET head_sequence = 6, head_digest = (SELECT digest FROM records WHERE sequence = 6)")
    assert verified(path).problem == "", "inside the file nothing is left that could tell"
    assert verified(path, noted).problem_at == 7


def test_a_chain_written_anew_shows_against_a_noted_head(path: Path, tamper: Tamper) -> None:
    noted = "{}:{}".format(*verified(path).head)
    digest = rows_of(path)[1][0].digest
    for record, _ in rows_of(path)[2:]:
        body = record.body.replace(b'"ann"', b'"eve"')
        digest = link(digest, body)
        tamper("UPDATE records SET body = ?, digest = ? WHERE sequence = ?", body, digest, record.sequence)
    tamper("UPDATE ends SET head_digest = ?", digest)
    assert verified(path).problem == ""
    assert verified(path, noted).problem_at == RECORDS


@pytest.mark.parametrize("noted", ["", "3", "x:y", "3:abc", f"-1:{'0' * 64}"])
def test_what_is_no_head_is_wrong_use(path: Path, noted: str) -> None:
    with pytest.raises(UsageError, match="SEQUENCE:DIGEST"):
        verified(path, noted)


def test_damaged_bytes_never_pass_for_the_record(path: Path, tmp_path: Path) -> None:
    """Random bytes are exchanged anywhere in the file: it is refused, named, or was not touched where it counts."""
    whole, content, draw = rows_of(path), path.read_bytes(), random.Random(3)
    damaged, seen = tmp_path / "damaged.db", 0
    used = [place for place, byte in enumerate(content) if byte]
    for _ in range(80):
        data = bytearray(content)
        start = draw.choice(used)
        for place in range(start, min(start + draw.choice([1, 1, 8, 600]), len(data))):
            data[place] ^= draw.randrange(1, 256)
        damaged.write_bytes(data)
        try:
            found = verified(damaged)
        except AuditError:
            seen += 1
            continue
        seen += bool(found.problem)
        assert found.problem or rows_of(damaged) == whole
    assert seen > 60


def test_a_file_that_was_cut_short_never_passes_for_the_record(path: Path, tmp_path: Path) -> None:
    content, draw, cut = path.read_bytes(), random.Random(4), tmp_path / "cut.db"
    for _ in range(20):
        cut.write_bytes(content[: draw.randrange(1, len(content))])
        try:
            assert verified(cut).problem
        except AuditError:
            continue


def test_a_write_that_was_torn_by_a_power_cut_loses_that_write_alone(path: Path, tmp_path: Path) -> None:
    """The write-ahead file ends anywhere within the last commit: all before it is there, and the chain is whole."""
    with AuditLog(path) as audit:
        audit.append([Entry("actuation", {"of": "d-0"})])
        wal = path.with_name(path.name + "-wal")
        kept = wal.stat().st_size
        audit.append([Entry("actuation", {"of": "d-1"})])
        base, log = path.read_bytes(), wal.read_bytes()
    draw, torn, ends = random.Random(5), tmp_path / "torn.db", set()
    for size in [kept, len(log), *(draw.randrange(kept, len(log)) for _ in range(25))]:
        for old in tmp_path.glob("torn.db*"):
            old.unlink()
        torn.write_bytes(base)
        torn.with_name("torn.db-wal").write_bytes(log[:size])
        found = verified(torn)
        assert not found.problem
        ends.add(found.head[0])
        with AuditLog(torn) as audit:  # and it goes on from there
            audit.append([Entry("actuation", {"of": "d-2"})])
        assert verified(torn).head[0] == found.head[0] + 1
    assert ends == {RECORDS + 1, RECORDS + 2}


def test_nothing_is_added_behind_an_end_that_does_not_fit(path: Path, tamper: Tamper) -> None:
    tamper(f"DELETE FROM records WHERE sequence = {RECORDS}")
    with pytest.raises(AuditError, match=r"the end of .* does not fit"):
        AuditLog(path)


def test_all_entries_are_added_or_none(path: Path) -> None:
    with AuditLog(path) as audit, pytest.raises(AuditError, match="UNIQUE"):
        audit.append([Entry("decision", {"decision": {"decision_id": "new"}}, "new"), Entry("decision", {}, "d-1")])
    assert verified(path).head[0] == RECORDS


def test_a_failed_write_leaves_the_log_fit_for_the_next(path: Path) -> None:
    with AuditLog(path) as audit:
        with pytest.raises(AuditError):
            audit.append([Entry("decision", {}, "d-1")])
        assert audit.head[0] == RECORDS
        assert audit.append([Entry("actuation", {}), Entry("actuation", {})]) == [RECORDS + 1, RECORDS + 2]
    assert verified(path).problem == ""


def test_every_commit_waits_for_the_disk(path: Path) -> None:
    with AuditLog(path) as audit:
        found = {name: audit._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert found == {"journal_mode": "wal", "synchronous": 2}  # 2 is FULL


def test_two_writers_make_one_chain(path: Path) -> None:
    with AuditLog(path) as first, AuditLog(path) as second:
        for _ in range(5):
            first.append([Entry("actuation", {"by": 1})])
            second.append([Entry("actuation", {"by": 2}), Entry("actuation", {"by": 2})])
    found = verified(path)
    assert (found.problem, found.records) == ("", RECORDS + 15)


def test_a_writer_that_is_kept_waiting_gives_up_and_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immunogate.runtime.audit.schema.PATIENCE_S", 0.05)
    with AuditLog(path) as first, AuditLog(path) as second, first.writing(), pytest.raises(AuditError, match="locked"):
        second.append([Entry("actuation", {})])


def test_a_reader_does_not_stop_the_gate(path: Path) -> None:
    with AuditReader(path) as reader, AuditLog(path) as audit:
        rows = reader.rows()
        next(rows)
        audit.append([Entry("actuation", {})])
        assert len(list(rows)) == RECORDS - 1, "a reader sees one state"


def test_a_clock_that_was_set_back_does_not_matter(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, AuditLog(path) as audit:
        patch.setattr("immunogate.runtime.audit.records.time.time", lambda: 86_400.0)
        audit.append([Entry("actuation", {})])
    with AuditLog(path) as audit:
        audit.append([Entry("actuation", {})])
    found = verified(path)
    assert (found.problem, found.clock_set_back, found.head[0]) == ("", 1, RECORDS + 2)
    assert [record.sequence for record, _ in rows_of(path)] == list(range(1, RECORDS + 3))


def test_only_its_owner_can_read_it(path: Path) -> None:
    with AuditLog(path) as audit:
        audit.append([Entry("actuation", {})])
        assert {file.stat().st_mode & 0o777 for file in path.parent.glob("audit.db*")} == {0o600}


def test_a_file_of_the_first_version_is_read_and_brought_up(path: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    shutil.copy(path, old)
    db = sqlite3.connect(old)
    db.executescript("DROP TABLE evidence; PRAGMA user_version = 1;")
    db.close()
    assert len(MIGRATIONS[0]) == 3
    assert verified(old).problem == ""
    with AuditLog(old) as audit:
        assert audit._db.execute("PRAGMA user_version").fetchone()[0] == VERSION
        audit.append([Entry("actuation", {})])
    assert verified(old).records == RECORDS + 1


def test_a_newer_file_and_other_files_are_refused(path: Path, tmp_path: Path) -> None:
    for statement in (f"PRAGMA user_version = {VERSION + 1}", "PRAGMA application_id = 7"):
        other = tmp_path / "other.db"
        shutil.copy(path, other)
        db = sqlite3.connect(other)
        db.execute(statement)
        db.close()
        for opening in (AuditLog, AuditReader):
            with pytest.raises(AuditError):
                opening(other)
    text = tmp_path / "text.db"
    text.write_text("not a database at all, just some text\n" * 40)
    for opening in (AuditLog, AuditReader):
        with pytest.raises(AuditError, match="not a database"):
            opening(text)
    with pytest.raises(UsageError, match="no folder"):
        AuditLog(tmp_path / "nowhere" / "a.db")
    with pytest.raises(UsageError, match="no record"):
        AuditReader(tmp_path / "absent.db")


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(min_size=32, max_size=32))
def test_no_two_bodies_share_a_digest(first: bytes, second: bytes, previous: bytes) -> None:
    assert (link(previous, first) == link(previous, second)) == (first == second)
