"""All jobs of an evaluation in their order, with what each will cost at the most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from immunogate.calib.robustness.black_box import by_questions
from immunogate.calib.robustness.desk import Desk
from immunogate.calib.robustness.frames import camera_frame
from immunogate.calib.robustness.gates import Gate
from immunogate.calib.robustness.outcome import Outcome
from immunogate.calib.robustness.protocols import HOPELESS, Protocol
from immunogate.calib.robustness.shown import clean_and_noise, oblivious, sizes_of
from immunogate.calib.robustness.white_box import adaptive, patch, retries

AIMS = ("dodging", "impersonation")


@dataclass(frozen=True)
class Job:
    """A part that is done as a whole, or gone on with.

    Attributes:
        name: unlike all others.
        cost: at the most, in passes of one face through the bare recogniser and back.
        work: what does it.
    """

    name: str
    cost: float
    work: Callable[[Desk], Outcome]


def planned(protocol: Protocol, gates: Mapping[str, Gate], tiers: Sequence[str], *, frames: bool) -> list[Job]:
    """The jobs of the tiers.

    Args:
        protocol: budgets.
        gates: configurations by key; ``none`` and ``bundle`` are among them.
        tiers: which of `immunogate.calib.robustness.protocols.TIERS`.
        frames: whether the camera's picture can be attacked.
    """
    makers = {
        "controls": _controls,
        "oblivious": _oblivious,
        "adaptive": _adaptive,
        "black box": _black_box,
        "patch": _patch,
        "retries": _retries,
    }
    jobs = [job for tier in tiers for job in makers[tier](protocol, list(gates.values()))]
    if frames and "adaptive" in tiers:
        jobs += _frames(protocol, gates["bundle"])
    return jobs


def _controls(protocol: Protocol, gates: list[Gate]) -> Iterator[Job]:
    cost = protocol.pairs * len(gates) * (2 + 2 * len(protocol.control_levels))
    yield Job("controls", cost, partial(clean_and_noise, gates=gates, levels=protocol.control_levels))


def _oblivious(protocol: Protocol, gates: list[Gate]) -> Iterator[Job]:
    for name in protocol.oblivious:
        for aim in AIMS:
            for levels in sizes_of(name, protocol.oblivious_levels):
                work = partial(oblivious, gates=gates, name=name, aim=aim, levels=levels)
                yield Job(f"oblivious {name} {aim} {levels:g}", 50.0 * protocol.pairs, work)


def _adaptive(protocol: Protocol, gates: list[Gate]) -> Iterator[Job]:
    for gate in gates:
        for name in protocol.adaptive:
            first = name == protocol.adaptive[0]
            for aim, sizes in zip(AIMS, (protocol.dodging_levels, protocol.impersonation_levels), strict=True):
                check = (HOPELESS,) if gate.own and first else ()
                for levels in (*sizes, *check):
                    shown = first and levels == max(sizes)
                    yield _one(protocol, gate, name, aim, levels, protocol.steps, protocol.eot, shown=shown)
        if gate.own and protocol.doubled_level is not None:
            name, level = protocol.adaptive[0], protocol.doubled_level
            yield _one(protocol, gate, name, "dodging", level, 2 * protocol.steps, protocol.eot)
            if gate.random:
                yield _one(protocol, gate, name, "dodging", level, protocol.steps, 2 * protocol.eot)


def _one(
    protocol: Protocol, gate: Gate, name: str, aim: str, levels: int, steps: int, eot: int, *, shown: bool = False
) -> Job:
    work = partial(adaptive, gate=gate, aim=aim, levels=levels, name=name, steps=steps, eot=eot, shown=shown)
    cost = _passes(protocol, gate, protocol.pairs, steps * protocol.restarts) * (0.2 if levels >= HOPELESS else 1)
    draws = f" EOT {eot}" if gate.random else ""
    return Job(f"adaptive {gate.key} {name}-{steps}{draws} {aim} {levels}", cost, work)


def _black_box(protocol: Protocol, gates: list[Gate]) -> Iterator[Job]:
    for gate in gates:
        if not gate.own and gate.key not in ("none", "fixed"):
            continue
        for name, count, queries in (
            ("Square", protocol.square_pairs, protocol.square_queries),
            ("HopSkipJump", protocol.hop_pairs, protocol.hop_queries),
        ):
            for aim in AIMS if count and queries else ():
                work = partial(by_questions, gate=gate, aim=aim, name=name, levels=protocol.black_level)
                yield Job(f"{name} {gate.key} {aim}", float(_weight(gate) * count * queries), work)


def _patch(protocol: Protocol, gates: list[Gate]) -> Iterator[Job]:
    for gate in gates:
        for kind in ("square", "eyeglasses") if protocol.patch_side and (gate.own or gate.key == "fixed") else ():
            for aim in AIMS:
                cost = _passes(protocol, gate, protocol.pairs, protocol.steps)
                yield Job(f"patch {kind} {gate.key} {aim}", cost, partial(patch, gate=gate, aim=aim, kind=kind))


def _retries(protocol: Protocol, gates: list[Gate]) -> Iterator[Job]:
    level = protocol.impersonation_levels[0]
    for gate in gates:
        for aim in AIMS if gate.own or gate.random else ():
            tries = 1 if gate.random else protocol.lockout
            cost = _passes(protocol, gate, protocol.random_pairs, protocol.steps * tries)
            yield Job(f"retries {gate.key} {aim}", cost, partial(retries, gate=gate, aim=aim, levels=level))


def _frames(protocol: Protocol, gate: Gate) -> Iterator[Job]:
    for levels in protocol.frame_levels:
        for aim in AIMS:
            cost = _passes(protocol, gate, protocol.random_pairs, protocol.steps)
            yield Job(f"frame {aim} {levels}", cost, partial(camera_frame, gate=gate, aim=aim, levels=levels))


def _passes(protocol: Protocol, gate: Gate, pairs: int, steps: int) -> float:
    count, draws = (protocol.random_pairs, protocol.eot) if gate.random else (pairs, 1)
    return float(_weight(gate) * count * steps * draws * len(gate.gradients))


def _weight(gate: Gate) -> int:
    """A purifier and its views cost about as much as a few passes of the recogniser."""
    return 1 if gate.key in ("none", "jpeg", "blur", "bits") else 5
