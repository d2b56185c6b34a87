"""The record of decisions that a gate adds to. Several processes may add to one file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from immunogate.errors import AuditError
from immunogate.files import sha256_of_bytes
from immunogate.runtime.audit.evidence import Sealed
from immunogate.runtime.audit.records import Kind, body_of, link
from immunogate.runtime.audit.schema import explained, open_for_writing, transaction


@dataclass(frozen=True)
class Entry:
    """What is to become a record.

    Attributes:
        kind: what it is about.
        content: plain JSON data.
        decision_id: of a decision, by which it is found again; no two records have the same.
        sealed: the encrypted crop, if it is kept.
    """

    kind: Kind
    content: dict[str, Any]
    decision_id: str | None = None
    sealed: Sealed | None = None


class AuditLog:
    """An opened record; a context manager.

    Args:
        path: the SQLite file; made where it is not there.

    Raises:
        UsageError: there is no such folder.
        AuditError: the file is not ours, is damaged, or can not be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = open_for_writing(path)
        try:
            with explained(path):
                self.head = _head(self._db, path)
        except BaseException:
            self._db.close()
            raise

    def append(self, entries: Sequence[Entry]) -> list[int]:
        """Add records, all or none; they are on the disk when this returns.

        Returns:
            Their sequence numbers.

        Raises:
            AuditError: the disk is full, another writer keeps the file, or its end does not fit its beginning.
        """
        with explained(self.path), self.writing():
            return [self.add(entry) for entry in entries]

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction to `add` records in, and for `immunogate.runtime.audit.retention` to take some out.

        Raises:
            AuditError: the end of the file does not fit its beginning.
        """
        before = self.head
        try:
            with transaction(self._db):
                # Read anew each time: another process may have added, or an earlier write of ours may have failed.
                self.head = _head(self._db, self.path)
                yield self._db
                self._db.execute("UPDATE ends SET head_sequence = ?, head_digest = ?", self.head)
        except BaseException:
            self.head = before
            raise

    def add(self, entry: Entry) -> int:
        """Add one record within `writing`, and give its sequence number."""
        sequence = self.head[0] + 1
        content, sealed = entry.content, entry.sealed
        if sealed is not None:
            content = {**content, "evidence": sealed.mark()}
        body = body_of(sequence, entry.kind, content)
        digest = link(self.head[1], body)
        self._db.execute("INSERT INTO records VALUES (?, ?, ?, ?)", (sequence, digest, entry.decision_id, body))
        if sealed is not None:
            kept = (sequence, sealed.key_id, sealed.nonce, sealed.data)
            self._db.execute("INSERT INTO evidence VALUES (?, ?, ?, ?)", kept)
        self.head = sequence, digest
        return sequence

    def context(self, data: dict[str, Any]) -> str:
        """Keep what many records share, once, and give the hash by which they name it.

        Raises:
            AuditError: it can not be written.
        """
        body = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        name = sha256_of_bytes(body)
        with explained(self.path), transaction(self._db):
            self._db.execute("INSERT OR IGNORE INTO contexts VALUES (?, ?)", (name, body))
        return name

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _head(db: sqlite3.Connection, path: Path) -> tuple[int, bytes]:
    """Sequence and digest of the newest record; nothing is ever added behind an end that does not fit."""
    noted = db.execute("SELECT head_sequence, head_digest FROM ends").fetchone()
    found = db.execute("SELECT sequence, digest FROM records ORDER BY sequence DESC LIMIT 1").fetchone()
    if found is None:  # a new file
        found = db.execute("SELECT anchor_sequence, anchor_digest FROM ends").fetchone()
    if noted is None or noted != found or not isinstance(noted[0], int) or not isinstance(noted[1], bytes):
        raise AuditError(
            f"the end of {path} does not fit: its records end with {found and found[0]}, its head is at "
            f"{noted and noted[0]}",
            f"See: immunogate audit verify {path}; then begin a new file and keep this one",
        )
    return noted[0], noted[1]
