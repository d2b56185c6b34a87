"""The tables of a record of decisions, and how older files become newer ones."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from immunogate.errors import AuditError, UsageError
from immunogate.runtime.audit.records import genesis

APPLICATION_ID = 0x696D6755
"""Marks the file as one of ours in SQLite's own header ("imgU")."""

PATIENCE_S = 2.0
"""How long a writer waits for another one. A decision that waited for long is too old to set anything off."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # Bodies are blobs: what is hashed is what lies there, whatever SQLite thinks of text.
        "CREATE TABLE records (sequence INTEGER PRIMARY KEY, digest BLOB NOT NULL, decision_id TEXT UNIQUE, "
        "body BLOB NOT NULL)",
        # The anchor is what the oldest record is chained to, the head is the newest record.
        "CREATE TABLE ends (one INTEGER PRIMARY KEY CHECK (one = 1), file_id BLOB NOT NULL, "
        "anchor_sequence INTEGER NOT NULL, anchor_digest BLOB NOT NULL, "
        "head_sequence INTEGER NOT NULL, head_digest BLOB NOT NULL)",
        # What many records share, under its own hash.
        "CREATE TABLE contexts (sha256 TEXT PRIMARY KEY, body BLOB NOT NULL)",
    ),
    (
        "CREATE TABLE evidence (sequence INTEGER PRIMARY KEY, key_id TEXT NOT NULL, nonce BLOB NOT NULL, "
        "sealed BLOB NOT NULL, UNIQUE (key_id, nonce))",
    ),
)
"""What makes version k + 1 of a file of version k; a new file gets all."""

VERSION = len(MIGRATIONS)


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open a record to add to it; it is made, or brought to this version, where need be.

    WAL: a commit is one append to a second file, and readers do not stop the gate. ``synchronous = FULL`` makes every
    commit wait until the disk has that append; the usual NORMAL of WAL would keep the file sound over a power cut and
    lose the last decisions, some of which may have opened a door.

    Raises:
        UsageError: there is no such folder.
        AuditError: the file is not ours, newer than this release, or can not be used.
    """
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} for the record of decisions", "Make it first")
    with explained(path):
        _create(path)
        db = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE_S)
        try:
            _check_ours(db, path, may_be_empty=True)
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # counts in an empty file only
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")  # who is pruned leaves nothing behind in free pages
            _migrate(db)
            _check_ours(db, path, may_be_empty=False)
        except BaseException:
            db.close()
            raise
    return db


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open a record to look at it; a gate may go on writing meanwhile. Older versions are read as they are.

    Raises:
        UsageError: there is no such file.
        AuditError: the file is not ours, newer than this release, or can not be used.
    """
    if not path.is_file():
        raise UsageError(f"there is no record of decisions {path}", "Make one: immunogate run --audit FILE")
    with explained(path):
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=PATIENCE_S)
        try:
            _check_ours(db, path, may_be_empty=False)
        except BaseException:
            db.close()
            raise
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, and no other writer in between."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk may have rolled back already
            db.execute("ROLLBACK")
        raise


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into ours; what was committed before stays."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
        raise AuditError(
            f"the record of decisions {path} can not be used: {error}",
            "Nothing that was recorded before is lost by this; check the disk and the file",
        ) from error


def version_of(db: sqlite3.Connection) -> int:
    """The version of an opened file."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _create(path: Path) -> None:
    """An empty file for nobody else to read; SQLite gives the files beside it the same permissions."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return
    folder = os.open(path.parent, os.O_RDONLY)  # the name has to survive a power cut as well
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_ours(db: sqlite3.Connection, path: Path, *, may_be_empty: bool) -> None:
    marks = int(db.execute("PRAGMA application_id").fetchone()[0]), version_of(db)
    if marks == (0, 0) and may_be_empty and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return
    if marks[0] != APPLICATION_ID or marks[1] < 1:
        raise AuditError(f"{path} is an SQLite file but no record of decisions")
    if marks[1] > VERSION:
        raise AuditError(f"{path} is of version {marks[1]}, this release knows {VERSION}", "Update immunogate")


def _migrate(db: sqlite3.Connection) -> None:
    if version_of(db) == VERSION:
        return
    with transaction(db):
        version = version_of(db)  # another process may have been first, between our look and our lock
        for step in MIGRATIONS[version:]:
            for statement in step:
                db.execute(statement)
        if version == 0:
            file_id = os.urandom(16)
            start = genesis(file_id)
            db.execute("INSERT INTO ends VALUES (1, ?, 0, ?, 0, ?)", (file_id, start, start))
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION}")
