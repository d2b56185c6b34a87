"""Makes a recorded decision once more: the same crop, seed and bundle have to give the same antibody and outcome."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from immunogate.errors import AuditError
from immunogate.runtime.audit.evidence import EvidenceKey
from immunogate.runtime.audit.reading import AuditReader
from immunogate.runtime.audit.records import Record
from immunogate.runtime.chain import MOST_FACES, FaceChain, Recognised
from immunogate.runtime.decide import Disagreement, Policy, Reason, Verdict, attack_score, judge
from immunogate.runtime.gallery import Templates
from immunogate.runtime.match import match, similarity_to
from immunogate.runtime.track import Track
from immunogate.structs import Pixels

NO_BOX = np.zeros(4, np.float32)
OUTCOME = ("outcome", "reason", "alarm_signal", "person", "confirmations")
"""What has to be the same for the same outcome."""


@dataclass(frozen=True)
class Recorded:
    """One decision as it was recorded.

    Attributes:
        record: its place in the chain.
        decision: as `Decision.to_json` wrote it.
        context: what its run was about, see `immunogate.runtime.audit.context`.
        batch: row of its face among those recognised at once, and how many those were; None where it was not
            recognised.
    """

    record: Record
    decision: dict[str, Any]
    context: dict[str, Any]
    batch: tuple[int, int] | None


@dataclass
class Replay:
    """What came of it.

    Attributes:
        compared: ``what``, ``recorded``, ``now`` and whether they are the ``same``.
        missing: what could not be replayed, and why.
    """

    compared: list[dict[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def compare(self, what: str, recorded: Any, now: Any) -> None:
        """Note a pair."""
        self.compared.append({"what": what, "recorded": recorded, "now": now, "same": recorded == now})

    @property
    def is_same(self) -> bool:
        """Whether something was replayed, and all of it came out the same."""
        return bool(self.compared) and all(one["same"] for one in self.compared)


def read_decision(reader: AuditReader, decision_id: str) -> Recorded:
    """Find a decision and what it depended on.

    Raises:
        UsageError: there is none of that name.
        AuditError: it is damaged.
    """
    record = reader.decision(decision_id)
    try:
        return _recorded(reader, record)
    except (KeyError, TypeError, ValueError) as error:
        raise AuditError(f"record {record.sequence} is no decision as a gate writes it: {error!r}") from error


def replay(
    reader: AuditReader, recorded: Recorded, chain: FaceChain, templates: Templates | None, key: EvidenceKey | None
) -> Replay:
    """Recognise the recorded crop anew and decide as it was decided.

    Args:
        reader: the opened record.
        recorded: from `read_decision`.
        chain: opened with the recorded mode and seed.
        templates: whom to match with; None leaves the outcome out.
        key: of the crops.

    Raises:
        AuditError: a crop was changed, or the key is another one.
    """
    found = Replay()
    why = _why_not(reader, recorded, key)
    if why or key is None or recorded.batch is None:
        found.missing.append(why)
        return found
    batch, row = _batch(reader, recorded, found)
    crops = np.stack([_crop(reader, one, key) for one in batch])
    frames, tracks = ([int(one.decision[name]) for one in batch] for name in ("frame", "track"))
    recognised = chain.recognise(crops, frames, tracks)
    antibody = recorded.decision["antibody"]
    found.compare("antibody.sha256", antibody.get("sha256"), recognised.antibodies.digest(row))
    found.compare("antibody.size", antibody.get("size"), int(recognised.antibodies.sizes()[row]))
    if templates is None:
        found.missing.append("the outcome: no gallery was given")
    elif recorded.context.get("policy") is None:
        found.missing.append("the outcome: what was asked for is not recorded")
    else:
        _decide(recorded, recognised, row, templates, found)
    return found


def _recorded(reader: AuditReader, record: Record) -> Recorded:
    data = record.data()
    row_and_size = data.get("batch")
    batch = None if row_and_size is None else (int(row_and_size[0]), int(row_and_size[1]))
    return Recorded(record, dict(data["decision"]), reader.context(data["context"]), batch)


def _why_not(reader: AuditReader, recorded: Recorded, key: EvidenceKey | None) -> str:
    """Why nothing can be replayed; empty where something can."""
    if recorded.batch is None:
        return f"the face was not recognised ({recorded.decision['reason']}): there is no crop and no antibody"
    if recorded.decision["reason"] == Reason.ERROR.value:
        return f"a stage failed, and why is not in the record of faces: {recorded.decision.get('detail', '')}"
    if "evidence" not in recorded.record.data():
        return "no crop was kept: the gate ran without --evidence"
    if reader.sealed(recorded.record.sequence) is None:
        return "the crop was kept and has been pruned since"
    return "" if key is not None else "the crop is encrypted: give its key with --evidence"


def _batch(reader: AuditReader, recorded: Recorded, found: Replay) -> tuple[list[Recorded], int]:
    """All faces that were recognised at once with it, in their order, and its row; itself alone if one is gone."""
    row, size = recorded.batch or (0, 1)
    at, decision = recorded.record.sequence, recorded.decision
    beside = [
        _recorded(reader, record)
        for record in reader.between(at - MOST_FACES, at + MOST_FACES)
        if record.data().get("kind") == "decision"
    ]
    frame = [
        one
        for one in beside
        if one.batch is not None
        and one.batch[1] == size
        and one.context == recorded.context
        and all(one.decision[name] == decision[name] for name in ("camera", "frame"))
        and reader.sealed(one.record.sequence) is not None
    ]
    by_row = {one.batch[0]: one for one in frame if one.batch}
    if sorted(by_row) == list(range(size)):
        return [by_row[number] for number in range(size)], row
    found.missing.append(f"the other {size - 1} faces of its frame: one alone may be rounded otherwise")
    return [recorded], 0


def _crop(reader: AuditReader, one: Recorded, key: EvidenceKey) -> Pixels:
    sealed = reader.sealed(one.record.sequence)
    if sealed is None or one.record.data().get("evidence") != sealed.mark():
        raise AuditError(f"the crop of record {one.record.sequence} is not the one that was recorded")
    return key.open(sealed, str(one.decision["decision_id"]))


def _decide(recorded: Recorded, recognised: Recognised, row: int, templates: Templates, found: Replay) -> None:
    decision = recorded.decision
    policy = Policy(**recorded.context["policy"])
    best = match(templates, recognised.purified[row])
    spread = None if recognised.spreads is None else float(recognised.spreads[row])
    raw = attack_score(recognised.raw[row], recognised.purified[row])
    # The look before it is not kept, but how far the two disagreed is.
    verdict = judge(best, Disagreement(raw, spread, decision["frame_disagreement"]), policy, _track(decision))
    age = decision["age_ms"]
    if not 0 <= age <= policy.max_decision_age_ms:
        verdict = Verdict("deny", Reason.STALE)
    now = {
        "outcome": verdict.outcome,
        "reason": verdict.reason.value,
        "alarm_signal": verdict.signal,
        "person": best.person,
        "confirmations": verdict.confirmations,
        "similarity": None if best.person is None else best.similarity,
        "similarity_raw": similarity_to(templates, best.person, recognised.raw[row]),
        "margin": best.margin,
        "attack_score": raw,
        "clone_disagreement": spread,
    }
    for what, value in now.items():
        found.compare(what, decision.get(what), value if what in OUTCOME else _rounded(value))


def _track(decision: dict[str, Any]) -> Track:
    """The track as it was before the look: as many agreeing frames as its record says, less this one."""
    before = max(int(decision["confirmations"]) - 1, 0)
    person = decision["person"] if before else None
    return Track(int(decision["track"]), NO_BOX, NO_BOX, 0.0, person=person, agreeing=before)


def _rounded(value: Any) -> float | None:
    """As the gate rounds it."""
    return round(float(value), 6) if value is not None and math.isfinite(value) else None
