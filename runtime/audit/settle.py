"""The one place that holds the order: a decision is recorded, its record is on the disk, then the relay is set off.

Whatever fails before the record is durable makes a deny. A kill or a power cut between the two leaves an allow that
set nothing off, never a door that opened for nobody.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from immunogate.runtime.audit.evidence import EvidenceKey
from immunogate.runtime.audit.log import AuditLog, Entry
from immunogate.runtime.audit.relay import Relay
from immunogate.runtime.audit.retention import Limits, prune
from immunogate.runtime.decide import Reason
from immunogate.structs import Decision

if TYPE_CHECKING:
    from immunogate.runtime.pipeline import FrameResult, Look

log = logging.getLogger(__name__)

PRUNE_EVERY_S = 3600.0


class Settlement:
    """Records the decisions of each frame and sets the relay off for those that allow.

    Args:
        audit: where they are recorded.
        context: hash of what the run is about, see `immunogate.runtime.audit.context`.
        max_age_ms: an allow whose frame is older than this when its record is durable sets nothing off.
        relay: what to set off; None sets nothing off.
        key: encrypts the crops that are kept; None keeps none.
        limits: what the file may hold; looked at when the run begins and every hour, between two frames.
    """

    def __init__(
        self,
        audit: AuditLog,
        context: str,
        max_age_ms: float,
        relay: Relay | None = None,
        key: EvidenceKey | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._audit = audit
        self._context = context
        self._max_age_ms = max_age_ms
        self._relay = relay
        self._key = key
        self._limits = limits
        self._pruned_at = -PRUNE_EVERY_S

    def begin(self) -> None:
        """Record that a gate begins.

        Raises:
            AuditError: it can not be recorded.
        """
        relay = None if self._relay is None else self._relay.name
        self._audit.append([Entry("run", {"context": self._context, "relay": relay})])
        self._prune()

    def settle(self, result: FrameResult) -> FrameResult:
        """Record a frame's decisions, then set off what is to be set off.

        Returns:
            The frame with the decisions that hold: an allow that could not be recorded, or came too late, is a deny.
        """
        if not result.decisions:
            self._prune()
            return result
        pairs = list(zip(result.looks, result.decisions, strict=True))
        try:
            self._audit.append(self._entries(pairs))
        except Exception as error:  # every doubt is a deny
            log.exception(
                "frame %d of %s: the decisions could not be recorded", result.frame.index, result.frame.camera
            )
            return replace(result, decisions=[_unrecorded(look, decision, error) for look, decision in pairs])
        held = [self._actuate(result.frame.captured_ns, look, decision) for look, decision in pairs]
        return replace(result, decisions=held)

    def _entries(self, pairs: list[tuple[Look, Decision]]) -> list[Entry]:
        fit = [look for look, _ in pairs if look.crop is not None]
        entries = []
        for look, decision in pairs:
            content = {"context": self._context, "decision": json.loads(decision.to_json())}
            sealed = None
            if look.crop is not None:
                # A network's rounding may depend on how many faces it saw at once: replay gives it the same batch.
                content["batch"] = [next(row for row, one in enumerate(fit) if one is look), len(fit)]
                sealed = None if self._key is None else self._key.seal(look.crop, decision.decision_id)
            entries.append(Entry("decision", content, decision.decision_id, sealed))
        return entries

    def _actuate(self, captured_ns: int, look: Look, decision: Decision) -> Decision:
        if decision.outcome != "allow":
            return decision
        age_ms = (time.monotonic_ns() - captured_ns) / 1e6
        if not 0 <= age_ms <= self._max_age_ms:
            detail = f"{age_ms:.0f} ms old when its record was durable, allowed are 0 to {self._max_age_ms:g} ms"
            self._tell(decision, "withheld", detail)
            return _denied(look, decision, Reason.STALE, detail)
        if self._relay is None:
            return decision
        try:
            self._relay(decision)
        except Exception as error:  # what failed may not be believed to have opened anything, and the gate goes on
            log.error("decision %s: %s", decision.decision_id, error)
            self._tell(decision, "failed", f"{type(error).__name__}: {error}")
            return replace(decision, detail=f"relay: {error}")
        self._tell(decision, "done", "")
        return decision

    def _tell(self, decision: Decision, result: str, detail: str) -> None:
        told = {"of": decision.decision_id, "relay": self._relay and self._relay.name, "result": result}
        try:
            self._audit.append([Entry("actuation", {**told, "detail": detail})])
        except Exception:  # it was set off, or not: what matters is recorded already
            log.exception("what came of decision %s could not be recorded: %s", decision.decision_id, result)

    def _prune(self) -> None:
        now = time.monotonic()
        if self._limits is None or now - self._pruned_at < PRUNE_EVERY_S:
            return
        self._pruned_at = now
        try:
            prune(self._audit, self._limits)
        except Exception:  # nothing was taken out, and decisions go on
            log.exception("old records could not be pruned")


def _unrecorded(look: Look, decision: Decision, error: Exception) -> Decision:
    """An alarm stays one and a deny too; an allow becomes a deny."""
    detail = f"not recorded: {error}"
    if decision.outcome != "allow":
        return replace(decision, detail=f"{decision.detail}; {detail}" if decision.detail else detail)
    return _denied(look, decision, Reason.NOT_RECORDED, detail)


def _denied(look: Look, decision: Decision, reason: Reason, detail: str) -> Decision:
    """Deny after all, and start the count of agreeing frames anew."""
    look.track.outcome, look.track.person, look.track.agreeing = "deny", None, 0
    return replace(decision, outcome="deny", reason=reason.value, confirmations=0, detail=detail)
