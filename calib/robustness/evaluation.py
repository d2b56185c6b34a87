"""An evaluation from its parts to its document: thresholds first, then every job, then what it comes to."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol

import numpy as np

from immunogate import __version__
from immunogate.calib.known_people import used_in
from immunogate.calib.robustness.alarms import limits_of, raised_by
from immunogate.calib.robustness.checks import sanity_of
from immunogate.calib.robustness.clean import curve, false_matches, lowest_rate, scores_of, threshold_on, timed
from immunogate.calib.robustness.deployed import TEMPLATE_FRAME, Answer, Placement, asked
from immunogate.calib.robustness.desk import Desk
from immunogate.calib.robustness.document import (
    SCHEMA_VERSION,
    Alarm,
    BundleFacts,
    Configuration,
    Det,
    Document,
    SettingFacts,
    Signal,
    Tool,
    rate_of,
)
from immunogate.calib.robustness.flags import Measured, flags_of
from immunogate.calib.robustness.gates import Gate, check_agreement
from immunogate.calib.robustness.memory import Memory
from immunogate.calib.robustness.outcome import Outcome
from immunogate.calib.robustness.pairs import Problem
from immunogate.calib.robustness.pixels import tensor_of
from immunogate.calib.robustness.plan import planned
from immunogate.calib.robustness.protocols import TIERS
from immunogate.calib.robustness.protocols import Protocol as Budgets
from immunogate.calib.robustness.records import from_plain, to_plain
from immunogate.calib.robustness.verdict import verdict_of
from immunogate.faces_file import AlignedFaces
from immunogate.manifest import Manifest

logger = logging.getLogger(__name__)

COMPARED = 16
"""Faces on which twin and deployed gate are compared first."""

NOT_TESTED = (
    "No full photos were given: detection and alignment were not attacked.",
    "Disagreement of consecutive frames was not tried as a sign of attack: each attack is one picture.",
    "Digital pictures only: neither prints, screens and masks before the camera (presentation attacks, ISO/IEC "
    "30107-3) nor injected video (CEN/TS 18099).",
)


class Progress(Protocol):
    """Is told how far the evaluation is."""

    def begin(self, what: str, cost: float) -> None:
        """A part that will cost this much at the most."""

    def share(self, done: float) -> None:
        """The share, 0 to 1, of that part that is done."""

    def plan(self, cost: float) -> None:
        """What all parts will cost."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What is evaluated and how.

    Attributes:
        manifest: of the bundle.
        bundle: what the document says of it.
        setting: what the document says of the setting.
        command: as it was typed.
        environment: where it runs.
        problem: faces and pairs.
        gates: configurations without thresholds, ``none`` and ``bundle`` among them.
        shown: keys of those that are reported.
        budgets: of the protocol.
        tiers: which are tried.
        placement: how frames are made and cropped, or None.
    """

    manifest: Manifest
    bundle: BundleFacts
    setting: SettingFacts
    command: str
    environment: dict[str, str]
    problem: Problem
    gates: Mapping[str, Gate]
    shown: tuple[str, ...]
    budgets: Budgets
    tiers: tuple[str, ...]
    placement: Placement | None = None


@dataclass(frozen=True, eq=False)
class Clean:
    """Clean faces through one configuration."""

    gate: Gate
    configuration: Configuration
    det: Det
    answer: Answer
    lowest: float


def evaluated(of: Asked, memory: Memory, progress: Progress) -> Document:
    """Measure everything, or what is left of it, and say what it comes to.

    Raises:
        ImmunogateError: the twin is not what is deployed.
        KeyboardInterrupt: as it came; what was found is saved.
    """
    start = time.monotonic()
    jobs = planned(of.budgets, _reported(of, of.gates), of.tiers, frames=of.placement is not None)
    faces = len(of.problem.images)
    progress.plan(sum(job.cost for job in jobs) + faces * len(of.gates))
    clean = {}
    for key, gate in of.gates.items():
        progress.begin(f"clean faces, {gate.name}", float(faces))
        began = time.monotonic()
        clean[key] = _clean(of, gate)
        logger.info("clean faces, %s: %.1f s", gate.name, time.monotonic() - began)
    gates = {key: one.gate for key, one in clean.items()}
    desk = Desk(
        of.problem,
        gates,
        of.budgets,
        of.setting.seed,
        memory,
        limits_of(of.manifest.calibration),
        of.placement,
        tick=progress.share,
    )
    # Jobs hold the gates that they attack: those with thresholds.
    jobs = planned(of.budgets, _reported(of, gates), of.tiers, frames=of.placement is not None)
    outcomes = []
    for job in jobs:
        progress.begin(job.name, job.cost)
        kept, began = memory.done(job.name), time.monotonic()
        if kept is None:
            memory.begin(job.name)
            try:
                kept = to_plain(job.work(desk))
            except KeyboardInterrupt:
                memory.save()
                raise
            memory.finish(job.name, kept)
            logger.info("%s: %.1f s", job.name, time.monotonic() - began)
        outcomes.append(from_plain(Outcome, kept, job.name))
    return _document(of, clean, outcomes, time.monotonic() - start)


def _reported(of: Asked, gates: Mapping[str, Gate]) -> dict[str, Gate]:
    return {key: gate for key, gate in gates.items() if key in of.shown}


def _clean(of: Asked, gate: Gate) -> Clean:
    """Threshold and clean rates of a configuration; the bundle's own threshold is the calibrated one."""
    problem = of.problem
    look = problem.reported[:COMPARED]
    crops = problem.images[look]
    check_agreement(gate, crops, tensor_of(crops), of.bundle.precision, TEMPLATE_FRAME)
    rows = problem.reported if gate.own else np.arange(len(problem.images))
    answer = asked(gate.deployed, problem.images[rows], [TEMPLATE_FRAME] * len(rows), [int(row) for row in rows])
    embeddings = np.zeros((len(problem.images), answer.embeddings.shape[1]), np.float32)
    embeddings[rows] = answer.embeddings
    if gate.own:
        threshold, source = of.bundle.calibration.threshold, f"the bundle's calibration: {of.bundle.calibration.source}"
    else:
        threshold, source = threshold_on(scores_of(embeddings, problem.identities, problem.calibrating), of.setting.fmr)
    scores = scores_of(embeddings, problem.identities, problem.reported)
    lowest = lowest_rate(embeddings[problem.reported], problem.identities[problem.reported], threshold, of.setting.seed)
    configuration = Configuration(
        gate.key,  # type: ignore[arg-type]
        gate.name,
        threshold,
        source,
        false_matches(scores, threshold),
        timed(gate.deployed, problem.images[problem.reported[: of.budgets.timed]]),
    )
    return Clean(gate.at(threshold, source), configuration, curve(configuration.key, scores), answer, lowest)


def _document(of: Asked, clean: dict[str, Clean], outcomes: list[Outcome], seconds: float) -> Document:
    rows = tuple(row for outcome in outcomes for row in outcome.rows)
    sanity, unchecked = sanity_of([attempt for outcome in outcomes for attempt in outcome.attempts])
    own = clean["bundle"]
    flags = flags_of(
        of.manifest,
        Measured(of.setting.photos_sha256, of.setting.fmr, own.configuration.fmr_measured, own.lowest, _known(of)),
    )
    shown = [one for key, one in clean.items() if key in of.shown]
    return Document(
        schema_version=SCHEMA_VERSION,
        tool=Tool("immunogate", __version__),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        command=of.command,
        environment=of.environment,
        bundle=of.bundle,
        setting=of.setting,
        verdict=verdict_of(rows, sanity, of.setting, flags),
        configurations=tuple(one.configuration for one in shown),
        rows=rows,
        det=tuple(one.det for one in shown),
        alarm=_alarm(of, own, outcomes),
        sanity=sanity,
        panels=tuple(panel for outcome in outcomes for panel in outcome.panels),
        not_tested=(*_not_tested(of), *unchecked),
    )


def _known(of: Asked) -> tuple[int, int] | None:
    """Photos whose person or picture the bundle was calibrated on, and all; None where it does not say."""
    if of.manifest.calibration is None:
        return None
    faces = AlignedFaces(of.problem.images, None, of.problem.identities)
    used, unknown = used_in(of.manifest.calibration, faces)
    return None if unknown else (int(used.sum()), len(used))


def _alarm(of: Asked, own: Clean, outcomes: list[Outcome]) -> Alarm:
    limits = limits_of(of.manifest.calibration)
    raised = [one for outcome in outcomes for one in outcome.raised]
    return Alarm(
        tuple(
            Signal(
                name,  # type: ignore[arg-type]
                limits.get(name),
                rate_of(int(flagged.sum()), len(flagged)),
                tuple(one.row for one in raised if one.signal == name),
            )
            for name, flagged in raised_by(limits, own.answer).items()
        )
    )


def _not_tested(of: Asked) -> tuple[str, ...]:
    """What was left out, by what was asked for."""
    missing = [tier for tier in TIERS if tier not in of.tiers]
    words = [f"These tiers were not run: {', '.join(missing)}."] if missing else []
    if of.placement is None or "adaptive" not in of.tiers or not of.budgets.frame_levels:
        words.append("The camera's picture was not attacked, only the aligned crop.")
    if _known(of) is None:
        words.append("Whether these people were calibrated on: the bundle's calibration does not say who they were.")
    return (*words, *NOT_TESTED)
