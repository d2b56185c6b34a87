"""The chain from a picture to an embedding, opened from one bundle: detect, align, purify, recognise.

The gate, enrolment, calibration and verification all use this one chain, so that what is measured is what runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
import numpy.typing as npt

from immunogate.basis import basis_from_bytes
from immunogate.bundle import Bundle
from immunogate.errors import BundleError, UsageError
from immunogate.faces_file import faces_from_pixels
from immunogate.kernels.antibody import AntibodySettings
from immunogate.kernels.launch import CudaKernels
from immunogate.manifest import DETECTOR_OUTPUTS, PurifierEntry
from immunogate.runtime.align import Quality, align, quality, thumbnail
from immunogate.runtime.clock import StageClock
from immunogate.runtime.detect import Detector
from immunogate.runtime.gallery import Templates
from immunogate.runtime.gpu.answers import Answers
from immunogate.runtime.gpu.face_path import FacePath
from immunogate.runtime.gpu.wiring import detector_for, face_path_for
from immunogate.runtime.profile.spans import span
from immunogate.runtime.purify import Purifier, kernels_for
from immunogate.runtime.recognise import LARGEST_BATCH, Recogniser, mean_embedding, spread
from immunogate.runtime.runners.base import Network, Role, Runner
from immunogate.runtime.runners.choose import open_runner
from immunogate.runtime.upright import upright
from immunogate.structs import CROP_SIZE, Antibodies, Floats, Match, Pixels

LONGEST_SIDE = 640
"""Default side in pixels to which the detector shrinks larger frames."""

SMALLEST_SIDE, LARGEST_SIDE = 32, 8192
"""Range of that side."""

MOST_THREADS = 64
MOST_FACES = 64
"""Faces that are purified at once at the most: as many as the detector reports."""


@dataclass(frozen=True, eq=False)
class Recognised:
    """B faces after purification and recognition.

    Attributes:
        raw: (B, E) embeddings of the faces as they came, for comparison.
        purified: (B, E) embeddings of the purified faces; over several kept clones and views their mean, of unit
            length.
        faces: (B, m, D) the purified faces.
        antibodies: what purified them.
        faults: why a face has to be denied, None where nothing is wrong; empty where a fault of one is raised for all.
            The embeddings of such a face are NaN.
        known: whom the faces were matched with already; None where they were not.
        matches: the answers, where they were.
        spreads: (B,) how much the clones and views of each purified face disagree, see
            `immunogate.runtime.recognise.spread`; None where there is one look only.
    """

    raw: Floats
    purified: Floats
    faces: Floats
    antibodies: Antibodies
    faults: Sequence[str | None] = ()
    known: Templates | None = None
    matches: Sequence[Match] = ()
    spreads: Floats | None = None


class FaceChain:
    """Detector, purifier and recogniser of one bundle. Build it with `open_chain`; close it when done.

    Args:
        detector: finds faces.
        purifier: purifies them.
        recogniser: embeds them.
        runners: what runs the networks of the three; closed with the chain.
        path: what keeps faces on a GPU, where that can be; closed with the chain.
    """

    def __init__(
        self,
        detector: Detector,
        purifier: Purifier,
        recogniser: Recogniser,
        runners: tuple[Runner, ...] = (),
        path: FacePath | None = None,
    ) -> None:
        self.detector = detector
        self.purifier = purifier
        self.recogniser = recogniser
        self.runners = runners
        self._path = path
        self._known: Templates | None = None

    def detector_of(self, longest_side: int) -> Detector:
        """Another detector on the same network, for a camera with a size of its own; close it when done.

        Args:
            longest_side: not above that of the chain's own, for which an engine may have been built.
        """
        return detector_for(self.purifier, self.runners[0], longest_side)

    def know(self, templates: Templates) -> None:
        """Match faces with these people where they are recognised, if that is on a GPU; else nothing happens."""
        if self._path is not None and templates is not self._known:
            self._path.know(templates)
            self._known = templates

    def glance(self, pixels: Pixels, landmarks: Floats) -> Floats:
        """What one face looks like at a glance, see `immunogate.runtime.align.thumbnail`.

        Raises:
            ValueError: the landmarks are impossible.
        """
        with span("glance"):
            return thumbnail(align(pixels, landmarks), self.purifier.mean)

    def crop(self, pixels: Pixels, landmarks: Floats) -> tuple[Pixels, Quality]:
        """The upright, aligned (112, 112) grey crop of one face and its quality.

        Raises:
            ValueError: the landmarks are impossible.
        """
        with span("upright"):
            better = upright(self.detector, pixels, landmarks)
        with span("crop"):
            crop = align(pixels, better)
            return crop, quality(better, crop)

    def recognise(
        self,
        crops: npt.NDArray[np.uint8],
        frames: list[int],
        numbers: list[int],
        clock: StageClock | None = None,
        *,
        each: bool = False,
    ) -> Recognised:
        """Purify and recognise B crops.

        Args:
            crops: (B, 112, 112) uint8 grey.
            frames: frame number of each face, part of its clone key.
            numbers: track (or other lasting) number of each face, part of its clone key.
            clock: where the time of the two stages is counted.
            each: where faults are known face by face, give them so instead of raising the first.

        Raises:
            ValueError: a network gave what is no probability, or an embedding that is not finite.
        """
        clock = clock or StageClock()
        if self._path is not None:
            with clock.stage("recognise"):
                found = self._path.recognise(crops, frames, numbers)
            fault = next(filter(None, found.faults), None)
            if fault is not None and not each:
                raise ValueError(fault)
            return self._on_device(found)
        faces = faces_from_pixels(crops)
        with clock.stage("purify"):
            purified = self.purifier.purify(faces, self.purifier.key(frames, numbers))
        batch, kept, pixels = purified.faces.shape
        with clock.stage("recognise"):
            with span("views"):
                views = self.recogniser.views(purified.faces.reshape(-1, pixels))
            both = self.recogniser.embed(np.concatenate([faces, views.reshape(-1, pixels)]))
        looks = both[batch:].reshape(batch, kept * views.shape[1], -1)
        clean = mean_embedding(looks)
        return Recognised(both[:batch], clean, purified.faces, purified.antibodies, spreads=spread(looks))

    def _on_device(self, found: Answers) -> Recognised:
        antibodies = found.antibodies(self.purifier.settings)
        pictures = np.asarray(found.pictures, np.float32)
        return Recognised(
            found.raw, found.purified, pictures, antibodies, found.faults, self._known, found.matches, found.spreads
        )

    def close(self) -> None:
        """Stop the workers, give back a GPU's memory and the networks."""
        if self._path is not None:
            self._path.close()
        self.detector.close()
        for runner in self.runners:
            runner.close()
        self.purifier.close()

    def __enter__(self) -> FaceChain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_chain(
    bundle: Bundle,
    *,
    mode: str | None = None,
    seed: int | None = None,
    threads: int | None = None,
    longest_side: int = LONGEST_SIDE,
    backend: str = "cpu",
    runner: str = "cpu",
    clones: int | None = None,
    top_k: int | None = None,
    batch: int = LARGEST_BATCH,
) -> FaceChain:
    """Load a bundle's networks and basis, each verified.

    Args:
        bundle: the opened bundle.
        mode: inference mode instead of the bundle's own. Its thresholds do not hold for another one.
        seed: key of the generator instead of the bundle's.
        threads: threads of each stage.
        longest_side: side in pixels to which the detector shrinks larger frames.
        backend: where purification is done: cpu, cuda or auto. Masks and winners do not depend on it, pixels by
            rounding alone. A chain on a GPU has to be used by the thread that opened it. Where the networks can run on
            that GPU's memory too, faces do not leave it.
        runner: what runs the networks, see `immunogate.runtime.runners.choose`.
        clones: drawn in mode select, instead of the bundle's; not more are kept.
        top_k: eigenfaces kept in mode fixed, instead of the bundle's.
        batch: faces in one run of the recogniser at the most.

    Raises:
        BundleError: a file is missing, tampered with or not what it should be.
        DeviceError, CompileError: the backend or the runner can not be used.
        UsageError: the mode or the runner is unknown, the mode needs an analyzer that the bundle does not have, or a
            number is out of range.
    """
    _check_range("--threads", threads, 1, MOST_THREADS)
    _check_range("--detector-size", longest_side, SMALLEST_SIDE, LARGEST_SIDE)
    _check_range("--batch", batch, 1, MOST_FACES)
    _check_range("--top-k", top_k, 1, bundle.manifest.purifier.components)
    manifest = bundle.manifest
    settings = antibody_settings(manifest.purifier, mode, seed, clones, top_k)
    if settings.needs_probabilities and manifest.analyzer is None:
        raise UsageError(
            f"mode {settings.mode} needs an analyzer and {bundle.folder} has none",
            "Use mode fixed, or export with --purifier",
        )
    with span("open basis"):
        basis = basis_from_bytes(bundle.read(manifest.purifier.basis), str(bundle.folder / manifest.purifier.basis))
    held, stated = len(basis.basis), manifest.purifier.components
    if held != stated:
        raise BundleError(f"{manifest.purifier.basis} holds {held} eigenfaces, the manifest says {stated}")
    with ExitStack() as opened:
        with span("open kernels"):
            kernels = kernels_for(basis, settings, threads, backend)
        opened.callback(kernels.close)
        device = kernels.device if isinstance(kernels, CudaKernels) else None

        def network(role: Role, file: str, largest: tuple[int, ...]) -> Runner:
            with span(f"open {role}"):
                asked = Network(bundle.read(file), file, largest, threads, bundle=bundle, role=role, shared=device)
                one = open_runner(asked, runner)
            opened.callback(one.close)
            return one

        analyzer = None
        if settings.needs_probabilities and manifest.analyzer is not None:
            sides: tuple[int, ...] = (manifest.purifier.components + 2,)
            if manifest.analyzer.reads == "face":
                sides = (1, CROP_SIZE, CROP_SIZE)
            analyzer = network("analyzer", manifest.analyzer.file, (MOST_FACES, *sides))
            genes = manifest.purifier.components + manifest.analyzer.gated
            analyzer.expect((None, *sides), ("probabilities",), (None, genes))
        entry = manifest.recogniser
        recogniser = network("recogniser", entry.file, (batch, 3, entry.height, entry.width))
        recogniser.expect((None, 3, entry.height, entry.width), ("embedding",))
        side = -(-longest_side // SMALLEST_SIDE) * SMALLEST_SIDE  # the detector pads to a multiple of its stride
        detector = network("detector", manifest.detector.file, (1, 3, side, side))
        detector.expect((None, 3, None, None), DETECTOR_OUTPUTS)
        purifier = Purifier(settings, kernels, analyzer)
        path = face_path_for(purifier, analyzer, recogniser, entry)
        if path is not None:
            opened.callback(path.close)
        chain = FaceChain(
            detector_for(purifier, detector, longest_side),
            purifier,
            Recogniser(recogniser, entry, batch),
            tuple(one for one in (detector, analyzer, recogniser) if one),
            path,
        )
        opened.pop_all()
        return chain


def _check_range(name: str, value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise UsageError(f"{name} must be in {low} .. {high}, got {value}")


def antibody_settings(
    entry: PurifierEntry,
    mode: str | None = None,
    seed: int | None = None,
    clones: int | None = None,
    top_k: int | None = None,
) -> AntibodySettings:
    """The settings that a manifest states, with others where given; of fewer clones than are kept all are kept."""
    settings = AntibodySettings(entry.mode, entry.top_k, entry.clones, entry.keep, entry.seed)
    keep = None if clones is None else min(entry.keep, clones)
    given = {"mode": mode, "seed": seed, "clones": clones, "keep": keep, "top_k": top_k}
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(settings, **changes) if changes else settings  # type: ignore[arg-type]
