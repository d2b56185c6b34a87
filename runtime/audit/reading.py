"""Looks at a record of decisions, also while a gate adds to it. All that is read may have been tampered with."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from immunogate.errors import AuditError, UsageError
from immunogate.files import sha256_of_bytes
from immunogate.runtime.audit.evidence import Sealed
from immunogate.runtime.audit.records import DIGEST_BYTES, Record
from immunogate.runtime.audit.schema import explained, open_for_reading, version_of

EVIDENCE_SINCE = 2
"""Version of the file from which on there are crops."""


@dataclass(frozen=True)
class Ends:
    """Where a chain begins and ends.

    Attributes:
        file_id: 16 random bytes, from which the first record's digest follows.
        anchor: sequence and digest of the newest record that was taken out; 0 and the genesis where none was.
        head: sequence and digest of the newest record.
    """

    file_id: bytes
    anchor: tuple[int, bytes]
    head: tuple[int, bytes]


@dataclass(frozen=True)
class Wanted:
    """Which records to list; None asks for nothing.

    Attributes:
        since, until: UTC, of the time at which it was recorded; ``until`` itself is left out.
        person: of a decision, allowed or not.
        outcome: of a decision.
        kind: of the record.
    """

    since: datetime | None = None
    until: datetime | None = None
    person: str | None = None
    outcome: str | None = None
    kind: str | None = None

    def has(self, data: dict[str, Any]) -> bool:
        """Whether a record's data are wanted."""
        stated = data.get("decision")
        decision = stated if isinstance(stated, dict) else {}
        pairs = (
            (self.kind, data.get("kind")),
            (self.person, decision.get("person")),
            (self.outcome, decision.get("outcome")),
        )
        if any(wanted is not None and wanted != found for wanted, found in pairs):
            return False
        if self.since is None and self.until is None:
            return True
        at = moment(str(data.get("recorded_at")))
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)


def moment(text: str) -> datetime:
    """An ISO 8601 time or date; without a zone it is UTC.

    Raises:
        UsageError: it is none.
    """
    try:
        at = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        return at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at.astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is no time", "Write 2026-11-23 or 2026-11-23T08:30:00Z") from error


class AuditReader:
    """A record opened for looking; a context manager.

    Args:
        path: the SQLite file.

    Raises:
        UsageError: there is no such file.
        AuditError: the file is not ours, newer than this release, or can not be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = open_for_reading(path)
        with explained(path):
            self._has_evidence = version_of(self._db) >= EVIDENCE_SINCE
            self._db.execute("BEGIN")  # one state of the file, whatever a gate adds meanwhile

    def ends(self) -> Ends:
        """Where the chain begins and ends.

        Raises:
            AuditError: the file does not say, or what it says is of another type.
        """
        with explained(self.path):
            rows = self._db.execute(
                "SELECT file_id, anchor_sequence, anchor_digest, head_sequence, head_digest FROM ends"
            ).fetchall()
        if len(rows) != 1 or [type(value) for value in rows[0]] != [bytes, int, bytes, int, bytes]:
            raise AuditError(f"{self.path} does not say where its chain begins and ends")
        file_id, anchor, anchor_digest, head, head_digest = rows[0]
        return Ends(file_id, (anchor, anchor_digest), (head, head_digest))

    def count(self) -> int:
        """Records in the file."""
        with explained(self.path):
            return int(self._db.execute("SELECT count(*) FROM records").fetchone()[0])

    def rows(self) -> Iterator[tuple[Record, Any]]:
        """All records by sequence, each with the decision_id by which the file finds it.

        Raises:
            AuditError: a page of the file is damaged, or a row is of another type.
        """
        with explained(self.path):
            yield from map(_typed, self._db.execute(_ROWS + "ORDER BY sequence"))

    def decision(self, decision_id: str) -> Record:
        """The record of one decision.

        Raises:
            UsageError: there is none.
            AuditError: the row is damaged.
        """
        with explained(self.path):
            row = self._db.execute(_ROWS + "WHERE decision_id = ?", (decision_id,)).fetchone()
        if row is None:
            raise UsageError(f"there is no decision {decision_id} in {self.path}", "See: immunogate audit list FILE")
        return _typed(row)[0]

    def between(self, first: int, last: int) -> list[Record]:
        """The records with these sequence numbers, both included."""
        with explained(self.path):
            query = _ROWS + "WHERE sequence BETWEEN ? AND ? ORDER BY sequence"
            return [_typed(row)[0] for row in self._db.execute(query, (first, last))]

    def context(self, name: str) -> dict[str, Any]:
        """What many records share, by its hash.

        Raises:
            AuditError: it is not there, or does not have that hash.
        """
        with explained(self.path):
            row = self._db.execute("SELECT body FROM contexts WHERE sha256 = ?", (name,)).fetchone()
        if row is None or not isinstance(row[0], bytes) or sha256_of_bytes(row[0]) != name:
            raise AuditError(f"{self.path}: the settings {name[:12]} are missing or were changed")
        data: dict[str, Any] = json.loads(row[0])
        return data

    def sealed(self, sequence: int) -> Sealed | None:
        """The encrypted crop of a record, None where none is kept.

        Raises:
            AuditError: the row is of another type.
        """
        if not self._has_evidence:
            return None
        with explained(self.path):
            query = "SELECT key_id, nonce, sealed FROM evidence WHERE sequence = ?"
            row = self._db.execute(query, (sequence,)).fetchone()
        if row is None:
            return None
        if [type(value) for value in row] != [str, bytes, bytes]:
            raise AuditError(f"the crop of record {sequence} is damaged")
        return Sealed(*row)

    def sealed_sequences(self) -> set[int]:
        """The records of which a crop is kept."""
        if not self._has_evidence:
            return set()
        with explained(self.path):
            return {int(row[0]) for row in self._db.execute("SELECT sequence FROM evidence")}

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> AuditReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_ROWS = "SELECT sequence, digest, body, decision_id FROM records "


def _typed(row: sqlite3.Row | tuple[Any, ...]) -> tuple[Record, Any]:
    sequence, digest, body, decision_id = row
    if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES or not isinstance(body, bytes):
        raise AuditError(f"record {sequence} is damaged: its columns are of other types than a gate writes")
    return Record(sequence, digest, body), decision_id
