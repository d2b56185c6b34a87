"""One record, as it is written and as it is chained.

A record's digest is SHA-256 over the digest before it and the record's own bytes (a linear hash chain, as in Schneier
and Kelsey, "Secure Audit Logs to Support Computer Forensics", 1999, without their keys): nothing in the middle can be
changed, taken out or moved without the digests behind it ceasing to fit. Order is the sequence number alone; clocks
are noted and never trusted.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from immunogate.errors import AuditError

RECORD_SCHEMA = 1
DIGEST_BYTES = 32
_GENESIS, _LINK = b"immunogate audit genesis 1\0", b"immunogate audit link 1\0"

Kind = Literal["run", "decision", "actuation", "prune"]
KINDS: tuple[Kind, ...] = ("run", "decision", "actuation", "prune")
"""A gate began; it decided; what came of setting off the relay; old records were taken out."""


@dataclass(frozen=True)
class Record:
    """One line of the chain.

    Attributes:
        sequence: from 1, without gaps.
        digest: 32 bytes, over the digest before it and ``body``.
        body: the bytes that were hashed: JSON in UTF-8.
    """

    sequence: int
    digest: bytes
    body: bytes

    def data(self) -> dict[str, Any]:
        """The body: sequence, kind, recorded_at, monotonic_ns and what belongs to the kind.

        Raises:
            AuditError: it is no JSON object.
        """
        try:
            data = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise AuditError(f"record {self.sequence} is no JSON: {error}") from error
        if not isinstance(data, dict):
            raise AuditError(f"record {self.sequence} is no JSON object")
        return data


def body_of(sequence: int, kind: Kind, content: dict[str, Any]) -> bytes:
    """The bytes of a record that is made now.

    Args:
        sequence: its number.
        kind: what it is about.
        content: plain JSON data; never NaN or infinity.
    """
    now = datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="milliseconds")
    head = {
        "schema": RECORD_SCHEMA,
        "sequence": sequence,
        "kind": kind,
        "recorded_at": now.replace("+00:00", "Z"),
        "monotonic_ns": time.monotonic_ns(),
    }
    return json.dumps({**head, **content}, separators=(",", ":"), allow_nan=False).encode()


def genesis(file_id: bytes) -> bytes:
    """What the first record of a file is chained to."""
    return hashlib.sha256(_GENESIS + file_id).digest()


def link(previous: bytes, body: bytes) -> bytes:
    """The digest of a record: 32 bytes."""
    return hashlib.sha256(_LINK + previous + body).digest()
