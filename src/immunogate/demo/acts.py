"""The four acts of the demo: what both gates decided in every frame, and what may be said about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from immunogate.bundle import Bundle
from immunogate.demo.gates import Known, Limits, open_gates
from immunogate.demo.noise import Noise, paste, piece_of
from immunogate.demo.scene import RATE, WalkUp
from immunogate.runtime.align import similarity_to_template
from immunogate.runtime.camera.recorded import RecordedCamera
from immunogate.runtime.chain import FaceChain
from immunogate.runtime.pipeline import FrameResult, Look
from immunogate.structs import Decision, Pixels

ADMITTED = 0.5
"""Share of the frames from which on a person counts as recognised in an act."""


@dataclass(frozen=True)
class Act:
    """One act.

    Attributes:
        number: from 1.
        title: what is shown.
        expected: whether the walking person is the enrolled one.
        attacked: whether noise lies over the face.
    """

    number: int
    title: str
    expected: bool
    attacked: bool


ACTS = (
    Act(1, "the enrolled person", True, False),
    Act(2, "the enrolled person, attacked: she is not to be recognised", True, True),
    Act(3, "a stranger", False, False),
    Act(4, "the stranger, attacked: to be taken for the enrolled person", False, True),
)


@dataclass(frozen=True, eq=False)
class Seen:
    """One frame of an act.

    Attributes:
        index: of the frame.
        pixels: (H, W, 3) uint8 BGR, as both gates got it.
        noise: (112, 112) int8, or None.
        look: of the defended gate at the nearest face; None where it saw none.
        decision: of the defended gate about it.
        bare: decision of the undefended gate; None where it saw none.
    """

    index: int
    pixels: Pixels
    noise: Noise | None
    look: Look | None
    decision: Decision | None
    bare: Decision | None


@dataclass(frozen=True, eq=False)
class Played:
    """An act after it was played, frame by frame."""

    act: Act
    frames: list[Seen]

    def outcomes(self, *, defended: bool) -> Counter[str]:
        """Frames by the outcome of a gate: allow, deny, alarm, or unseen."""
        found = ((seen.decision if defended else seen.bare) for seen in self.frames)
        return Counter("unseen" if decision is None else decision.outcome for decision in found)

    def first(self, outcome: str, *, defended: bool) -> int | None:
        """Index of the first frame with this outcome."""
        for seen in self.frames:
            decision = seen.decision if defended else seen.bare
            if decision is not None and decision.outcome == outcome:
                return seen.index
        return None

    def fooled(self) -> bool:
        """Whether the attack did to the undefended gate what it was made for; without an attack, whether it erred."""
        allowed = self.outcomes(defended=False)["allow"]
        return allowed < ADMITTED * len(self.frames) if self.act.expected else allowed > 0

    def held(self) -> bool:
        """Whether the defended gate did right.

        The enrolled person counts as answered where she was allowed or, under attack, an alarm was raised, and has
        to be in half of the frames; a stranger must not be allowed in a single one.
        """
        found = self.outcomes(defended=True)
        if not self.act.expected:
            return found["allow"] == 0
        answered = found["allow"] + (found["alarm"] if self.act.attacked else 0)
        return answered >= ADMITTED * len(self.frames)

    def as_hoped(self) -> bool:
        """Whether the act shows what its title promises: the attack works where there is one, and the gate holds."""
        return self.fooled() == self.act.attacked and self.held()


class NoisyReel:
    """The frames of a walk-up with noise laid over the face: a reel for a `RecordedCamera`.

    Args:
        walk: the clean frames.
        noise: (K, 112, 112) int8 pieces, or None for none.
    """

    def __init__(self, walk: WalkUp, noise: Noise | None) -> None:
        self._walk = walk
        self._noise = noise
        self._index = -1

    def advance(self) -> bool:
        """Wind on to the next frame; False at the end."""
        self._index += 1
        return self._index < self._walk.frames

    def picture(self) -> Pixels:
        """The frame wound to."""
        frame = self._walk.frame(self._index)
        piece = noise_at(self._noise, self._index, self._walk.frames)
        if piece is None:
            return frame
        return paste(frame, piece, similarity_to_template(self._walk.landmarks(self._index)))

    def close(self) -> None:
        """Nothing is held."""


def noise_at(noise: Noise | None, frame: int, frames: int) -> Noise | None:
    """The piece of noise that belongs to a frame, or None where there is none."""
    return None if noise is None else noise[piece_of(frame, frames, len(noise))]


def play(
    act: Act,
    walk: WalkUp,
    noise: Noise | None,
    chain: FaceChain,
    known: Known,
    limits: Limits,
    bundle: Bundle,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Played:
    """Let a person walk up to both gates.

    Args:
        act: what is played.
        walk: its frames.
        noise: pieces laid over the face, or None.
        chain: of the bundle.
        known: who is enrolled.
        limits: of both gates.
        bundle: for the decisions' record.
        progress: wraps the numbers of the frames.
    """
    gates = open_gates(chain, known, limits, bundle)
    camera = RecordedCamera(f"act {act.number}", NoisyReel(walk, noise), RATE, walk.frames)
    frames = []
    for index in progress(range(walk.frames)):
        frame = next(camera)
        found, bare = (gate.process(frame) for gate in gates)
        look, decision = _nearest(found)
        frames.append(Seen(index, frame.pixels, noise_at(noise, index, walk.frames), look, decision, _nearest(bare)[1]))
    return Played(act, frames)


def _nearest(result: FrameResult) -> tuple[Look, Decision] | tuple[None, None]:
    """The largest face of a frame; but one that was let in counts before all others."""
    both = list(zip(result.looks, result.decisions, strict=True))
    if not both:
        return None, None

    def weight(pair: tuple[Look, Decision]) -> tuple[bool, float]:
        left, top, right, bottom = pair[1].box
        return pair[1].outcome == "allow", (right - left) * (bottom - top)

    return max(both, key=weight)
