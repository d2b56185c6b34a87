"""Takes the oldest records out, so that a file stays within an age and a size, and the rest still verifies.

What is taken out is always the beginning of the chain. Its last digest stays as the anchor that the oldest kept
record is chained to, and a record of the pruning itself, at the chain's end, states the same digest: who cuts off the
beginning by other means has nothing of the kind.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from immunogate.errors import UsageError
from immunogate.runtime.audit.log import AuditLog, Entry
from immunogate.runtime.audit.reading import moment
from immunogate.runtime.audit.schema import explained

MOST_DAYS, MOST_MB = 36_500.0, 1e6
SHARE = 16
"""A file that is too large loses this part of its records at once, and again until it fits."""


@dataclass(frozen=True)
class Limits:
    """What may be kept; None is no limit.

    Attributes:
        days: age of records.
        megabytes: used by records and crops, in the file.
        crop_days: age of crops; their records stay.

    Raises:
        UsageError: a value is out of its range.
    """

    days: float | None = None
    megabytes: float | None = None
    crop_days: float | None = None

    def __post_init__(self) -> None:
        for name, most in (("days", MOST_DAYS), ("megabytes", MOST_MB), ("crop_days", MOST_DAYS)):
            value = getattr(self, name)
            if value is not None and not 0 < value <= most:
                raise UsageError(f"{name.replace('_', '-')} must be above 0 and at most {most:g}, got {value}")


@dataclass(frozen=True)
class Pruned:
    """What was taken out: records, and crops whose records were kept."""

    records: int = 0
    crops: int = 0


def prune(log: AuditLog, limits: Limits, now: float | None = None) -> Pruned:
    """Take out what is beyond the limits, all in one transaction.

    A record goes by age only where every record before it goes too: the first one that is young enough, or that does
    not tell its age, keeps all behind it. A clock that was wrong for a while makes the file larger, not emptier; the
    limit of size asks no clock.

    Args:
        log: the opened record.
        limits: what may be kept.
        now: seconds since the Unix epoch, instead of the clock's.

    Raises:
        AuditError: the file can not be written; nothing was taken out.
    """
    wall = time.time() if now is None else now
    with explained(log.path), log.writing() as db:
        crops = 0 if limits.crop_days is None else _drop_crops(db, _before(wall, limits.crop_days))
        through = 0 if limits.days is None else _older(db, _before(wall, limits.days))
        found = _cut(db, through)
        while limits.megabytes is not None and _used(db) > limits.megabytes * 1e6:
            count, first = db.execute("SELECT count(*), min(sequence) FROM records").fetchone()
            if not count:
                break
            found = _merged(found, _cut(db, first + count // SHARE))
        if found is None and not crops:
            return Pruned()
        told: dict[str, int | str] = {"crops": crops, "records": 0}
        if found is not None:
            last, digest, count = found
            db.execute("UPDATE ends SET anchor_sequence = ?, anchor_digest = ?", (last, digest))
            told = {**told, "records": count, "through": last, "digest": digest.hex()}
        log.add(Entry("prune", told))
    with explained(log.path):
        db.executescript("PRAGMA incremental_vacuum")  # execute would give one page back and stop
    return Pruned(int(told["records"]), crops)


def _before(wall: float, days: float) -> datetime:
    return datetime.fromtimestamp(wall, timezone.utc) - timedelta(days=days)


def _older(db: sqlite3.Connection, limit: datetime) -> int:
    """The last of the oldest records that are all older than the limit; 0 where there is none."""
    through = 0
    for sequence, body in db.execute("SELECT sequence, body FROM records ORDER BY sequence"):
        if not _is_older(body, limit):
            break
        through = sequence
    return through


def _drop_crops(db: sqlite3.Connection, limit: datetime) -> int:
    query = "SELECT sequence, body FROM records WHERE sequence IN (SELECT sequence FROM evidence) ORDER BY sequence"
    old = [(sequence,) for sequence, body in db.execute(query) if _is_older(body, limit)]
    db.executemany("DELETE FROM evidence WHERE sequence = ?", old)
    return len(old)


def _is_older(body: bytes, limit: datetime) -> bool:
    try:
        return moment(json.loads(body)["recorded_at"]) < limit
    except (ValueError, KeyError, TypeError, UsageError):  # what tells no age is kept
        return False


Cut = tuple[int, bytes, int]


def _cut(db: sqlite3.Connection, through: int) -> Cut | None:
    """Take out the records up to a sequence, and give the last one's, its digest, and how many went."""
    row = db.execute(
        "SELECT sequence, digest FROM records WHERE sequence <= ? ORDER BY sequence DESC LIMIT 1", (through,)
    ).fetchone()
    if row is None:
        return None
    db.execute("DELETE FROM evidence WHERE sequence <= ?", (through,))
    return int(row[0]), bytes(row[1]), db.execute("DELETE FROM records WHERE sequence <= ?", (through,)).rowcount


def _merged(first: Cut | None, second: Cut | None) -> Cut | None:
    if first is None or second is None:
        return first or second
    return second[0], second[1], first[2] + second[2]


def _used(db: sqlite3.Connection) -> int:
    """Bytes of the file's pages that hold something."""
    size, pages, free = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_size", "page_count", "freelist_count")
    )
    return size * (pages - free)
