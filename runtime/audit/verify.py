"""Goes along the whole chain and names the first record that does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from immunogate.errors import AuditError, UsageError
from immunogate.runtime.audit.reading import AuditReader, Ends
from immunogate.runtime.audit.records import Record, genesis, link

Rows = Iterable[tuple[Record, Any]]
Watch = Callable[[Rows, int], Rows]


@dataclass
class Verification:
    """What came of it.

    Attributes:
        records: that fit.
        kinds: how many of each kind.
        first: sequence of the oldest record, 0 where there is none.
        anchor: sequence of the newest record that was taken out by pruning, 0 where none was.
        head: sequence and digest in hexadecimal of the last record that fits: to be noted elsewhere.
        crops: encrypted crops, each as the chain says.
        clock_set_back: records whose time is before that of the record before them; no fault, the order is the
            sequence.
        problem: what does not fit, empty where all does.
        problem_at: sequence of the first record that does not fit; None where the file as a whole does not.
    """

    records: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    first: int = 0
    anchor: int = 0
    head: tuple[int, str] = (0, "")
    crops: int = 0
    clock_set_back: int = 0
    problem: str = ""
    problem_at: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "ok": not self.problem,
            "records": self.records,
            "kinds": dict(self.kinds),
            "first": self.first,
            "pruned_through": self.anchor,
            "head": f"{self.head[0]}:{self.head[1]}",
            "crops": self.crops,
            "clock_set_back": self.clock_set_back,
            "problem": self.problem or None,
            "problem_at": self.problem_at,
        }


class _MisfitError(Exception):
    """The chain breaks here."""

    def __init__(self, at: int | None, what: str) -> None:
        super().__init__(what)
        self.at = at


def verify(reader: AuditReader, expected: str | None = None, watch: Watch = lambda rows, total: rows) -> Verification:
    """Verify a whole record of decisions.

    Args:
        reader: the opened file.
        expected: a head that was noted before, ``SEQUENCE:DIGEST``: the chain has to go through it. Only this shows
            that newest records were cut off, or that somebody wrote the whole file anew.
        watch: goes through the rows, for a progress bar.

    Raises:
        UsageError: ``expected`` is no head.
    """
    noted = None if expected is None else _noted(expected)
    found = Verification()
    walk = None
    try:
        ends = reader.ends()
        found.anchor = ends.anchor[0]
        _check_beginning(ends)
        walk = _Walk(reader, ends, found, noted)
        walk.go(watch)
    except _MisfitError as misfit:
        found.problem, found.problem_at = str(misfit), misfit.at
    except AuditError as error:  # a page or a part that can not be read: the record behind the last good one
        found.problem, found.problem_at = error.what, walk.sequence + 1 if walk else None
    return found


class _Walk:
    """One way along the chain."""

    def __init__(self, reader: AuditReader, ends: Ends, found: Verification, noted: tuple[int, str] | None) -> None:
        self._reader, self._ends, self._found, self._noted = reader, ends, found, noted
        self.sequence, self._digest = ends.anchor
        self._told_of_anchor = ends.anchor[0] == 0
        self._crops = reader.sealed_sequences()
        self._contexts: set[str] = set()
        self._before = ""

    def go(self, watch: Watch) -> None:
        if self._noted and self._noted[0] <= self.sequence:
            self._meet_noted()
        for record, decision_id in watch(self._reader.rows(), self._reader.count()):
            self._step(record, decision_id)
        if (self.sequence, self._digest) != self._ends.head:
            told = self._ends.head[0]
            raise _MisfitError(self.sequence + 1, f"the last record is {self.sequence}, the file's head is at {told}")
        if not self._told_of_anchor:
            raise _MisfitError(None, f"no record tells that those up to {self._ends.anchor[0]} were pruned")
        if self._crops:
            extra = min(self._crops)
            raise _MisfitError(extra, f"there is a crop for record {extra}, which has none or is not there")
        if self._noted and self._noted[0] > self.sequence:
            missing = f"the records behind {self.sequence} are missing: {self._noted[0]} was noted as the head"
            raise _MisfitError(self.sequence + 1, missing)

    def _step(self, record: Record, decision_id: Any) -> None:
        expected = self.sequence + 1
        if record.sequence != expected:
            raise _MisfitError(expected, f"record {expected} is missing: {record.sequence} follows {self.sequence}")
        if link(self._digest, record.body) != record.digest:
            raise _MisfitError(
                expected, f"record {expected} does not fit the chain: it was changed, moved or exchanged"
            )
        data = record.data()
        decision = data.get("decision")
        stated = decision.get("decision_id") if isinstance(decision, dict) else None
        if data.get("sequence") != expected or stated != decision_id:
            raise _MisfitError(expected, f"record {expected} is filed under another number or decision than it states")
        self._check_parts(expected, data)
        self.sequence, self._digest = record.sequence, record.digest
        self._count(data)
        if self._noted and self._noted[0] == self.sequence:
            self._meet_noted()

    def _check_parts(self, sequence: int, data: dict[str, Any]) -> None:
        context = data.get("context")
        if isinstance(context, str) and context not in self._contexts:
            self._reader.context(context)
            self._contexts.add(context)
        if data.get("kind") == "prune" and data.get("through") == self._ends.anchor[0]:
            self._told_of_anchor |= data.get("digest") == self._ends.anchor[1].hex()
        sealed = self._reader.sealed(sequence) if sequence in self._crops else None
        if sealed is not None:
            if data.get("evidence") != sealed.mark():
                raise _MisfitError(sequence, f"the crop of record {sequence} is not the one that was recorded")
            self._crops.discard(sequence)
            self._found.crops += 1

    def _count(self, data: dict[str, Any]) -> None:
        found, at = self._found, str(data.get("recorded_at"))
        found.records += 1
        found.first = found.first or self.sequence
        found.kinds[str(data.get("kind"))] += 1
        found.clock_set_back += at < self._before  # one fixed format in UTC: text sorts as time does
        self._before = at
        found.head = self.sequence, self._digest.hex()

    def _meet_noted(self) -> None:
        """At the noted head, or already past it since it was pruned."""
        if self._noted is not None and self._noted[0] == self.sequence and self._noted[1] != self._digest.hex():
            raise _MisfitError(self.sequence, f"record {self.sequence} has another digest than was noted")


def _check_beginning(ends: Ends) -> None:
    if ends.anchor[0] == 0 and ends.anchor[1] != genesis(ends.file_id):
        raise _MisfitError(None, "the beginning of the chain does not fit the file")


def _noted(text: str) -> tuple[int, str]:
    number, _, digest = text.strip().partition(":")
    if not number.isdigit() or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise UsageError(f"{text!r} is no head of a chain", "Write SEQUENCE:DIGEST as audit verify prints it")
    return int(number), digest
