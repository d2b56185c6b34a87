"""Opens the gate that a profile looks at: as ``immunogate run`` does, with a source and people of its own."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.runtime.camera import Camera
    from immunogate.runtime.chain import FaceChain
    from immunogate.runtime.decide import Policy
    from immunogate.runtime.gallery import Templates
    from immunogate.runtime.pipeline import Gate
    from immunogate.structs import Pixels

LOOKS = ("every", "gate")
MOST_PEOPLE, MOST_FACES = 1_000_000, 16
LEAST_SIDE, LARGEST_SIDE = 160, 4096


@dataclass(frozen=True)
class Setup:
    """What is profiled.

    Attributes:
        source: address of a camera or file; None for a drawn scene.
        faces: in the drawn scene.
        size: its width and height in pixels.
        rate: its frames a second; 0 for each as soon as the last is decided.
        looks: every (each face in each frame) or gate (as often as a gate looks).
        people: made-up people in the gallery.
        mode, clones, top_k: instead of the bundle's; None leaves it.
        batch: faces in one run of the recogniser at the most; None for the usual.
        backend, runner, threads, detector_size: as for ``immunogate run``.

    Raises:
        UsageError: a number is out of its range.
    """

    source: str | None = None
    faces: int = 1
    size: tuple[int, int] = (640, 480)
    rate: float = 25.0
    looks: str = "every"
    people: int = 100
    mode: str | None = None
    clones: int | None = None
    top_k: int | None = None
    batch: int | None = None
    backend: str = "cpu"
    runner: str = "cpu"
    threads: int | None = None
    detector_size: int = 640

    def __post_init__(self) -> None:
        if not 1 <= self.people <= MOST_PEOPLE:
            raise UsageError(f"--people must be in 1 .. {MOST_PEOPLE}, got {self.people}")
        if not 0 <= self.faces <= MOST_FACES:
            raise UsageError(f"--faces must be in 0 .. {MOST_FACES}, got {self.faces}")
        if not all(LEAST_SIDE <= side <= LARGEST_SIDE for side in self.size):
            width, height = self.size
            raise UsageError(f"--size must have sides of {LEAST_SIDE} .. {LARGEST_SIDE} pixels, got {width}x{height}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `of_dict` reads it back."""
        return dataclasses.asdict(self)

    @staticmethod
    def of_dict(data: dict[str, Any]) -> Setup:
        """From `to_dict`, also through JSON."""
        return Setup(**{**data, "size": tuple(data["size"])})

    def pictures(self) -> list[Pixels]:
        """The drawn scene; empty where there is a source.

        Raises:
            MissingExtraError: the portraits are not installed.
        """
        from immunogate.cli.profile_scene import scene

        return [] if self.source is not None else scene(self.faces, *self.size)

    def open_camera(self, pictures: list[Pixels]) -> Camera:
        """The source, or a camera over the drawn pictures.

        Raises:
            UsageError, InputError, CameraError: as `immunogate.runtime.camera.open_camera`.
        """
        from immunogate.runtime.camera import open_camera
        from immunogate.runtime.profile.looped import looped_camera

        if self.source is not None:
            return open_camera(self.source, realtime=self.rate > 0)
        return looped_camera(self.name(), pictures, self.rate)

    def name(self) -> str:
        """Of the source, without credentials."""
        from immunogate.runtime.camera import redact

        width, height = self.size
        return redact(self.source) if self.source is not None else f"drawn scene {width}x{height}, {self.faces} faces"

    def batch_or_usual(self) -> int:
        """Faces in one run of the recogniser at the most."""
        from immunogate.runtime.recognise import LARGEST_BATCH

        return LARGEST_BATCH if self.batch is None else self.batch

    def open_chain(self, bundle: Bundle) -> FaceChain:
        """The bundle's chain with these settings.

        Raises:
            ImmunogateError: as `immunogate.runtime.chain.open_chain`.
        """
        from immunogate.runtime.chain import open_chain

        return open_chain(
            bundle,
            mode=self.mode,
            threads=self.threads,
            longest_side=self.detector_size,
            backend=self.backend,
            runner=self.runner,
            clones=self.clones,
            top_k=self.top_k,
            batch=self.batch_or_usual(),
        )

    def open_gate(self, bundle: Bundle, chain: FaceChain, *, looks: str | None = None) -> Gate:
        """A gate over the chain that has seen nobody yet."""
        from immunogate.runtime.pipeline import Gate
        from immunogate.runtime.track import TrackLimits

        always = TrackLimits(eager_looks=sys.maxsize, pause=0.0, recheck=0.0)
        limits = always if (looks or self.looks) == "every" else TrackLimits()
        templates = made_up_people(self.people, bundle.manifest.recogniser.embedding_dimension)
        return Gate(chain, templates, self._policy(bundle), bundle.sha256, limits)

    def _policy(self, bundle: Bundle) -> Policy:
        """The bundle's limits where it has some; times hardly depend on them."""
        from immunogate.runtime.decide import Policy

        calibration = bundle.manifest.calibration
        threshold = calibration.thresholds[0].threshold if calibration and calibration.thresholds else 0.5
        alarm = calibration.alarm if calibration else 1.0
        if self.source is not None:
            return Policy(threshold=threshold, alarm=alarm)
        # In a drawn scene of many every face goes all the way, small as it may be.
        return Policy(threshold=threshold, alarm=alarm, least_eye_distance=1.0)


def made_up_people(count: int, dimension: int) -> Templates:
    """So many people whom nobody resembles: random directions."""
    import numpy as np

    from immunogate.runtime.gallery import Templates

    draw = np.random.default_rng(1)
    vectors = draw.standard_normal((count, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Templates([f"nobody {number}" for number in range(count)], vectors)
