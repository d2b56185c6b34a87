"""A bundle's own chain whose networks can be listened to and exchanged, so that what is measured is what runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from immunogate.basis import basis_from_bytes
from immunogate.bundle import Bundle
from immunogate.calib.precision.accuracy import Seen
from immunogate.cli.common import BATCH, progress
from immunogate.runtime.chain import FaceChain, Recognised, antibody_settings
from immunogate.runtime.detect import Detector
from immunogate.runtime.purify import Purifier, kernels_for
from immunogate.runtime.recognise import Recogniser
from immunogate.runtime.runners.base import Array, Runner
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.structs import Floats

ANALYZER, RECOGNISER = "analyzer", "recogniser"


class Tap(Runner):
    """Runs a network, and remembers what reached it while it is asked to.

    Args:
        runner: of the network.
    """

    def __init__(self, runner: Runner) -> None:
        self.inner = runner
        self.name, self.input_name, self.input_shape = runner.name, runner.input_name, runner.input_shape
        self.output_names, self.output_shapes = runner.output_names, runner.output_shapes
        self.heard: list[Array] | None = None
        self.said: list[Array] | None = None

    def run(self, batch: Array) -> dict[str, Array]:
        """As the runner, see `Runner.run`."""
        outputs = self.inner.run(batch)
        if self.heard is not None and self.said is not None:
            self.heard.append(np.array(batch))
            self.said.append(outputs[self.output_names[0]])
        return outputs


class TappedChain:
    """The chain of a bundle on the CPU, see `immunogate.runtime.chain`.

    Args:
        bundle: opened, in its own mode.
        threads: of each stage.

    Raises:
        BundleError: a file is missing, tampered with or not what it should be.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        manifest, self._threads = bundle.manifest, threads
        self.dimension = manifest.recogniser.embedding_dimension
        settings = antibody_settings(manifest.purifier)
        files = {RECOGNISER: manifest.recogniser.file}
        if settings.needs_probabilities and manifest.analyzer is not None:
            files[ANALYZER] = manifest.analyzer.file
        self.content = {role: bundle.read(name) for role, name in files.items()}
        self.taps = {role: Tap(OnnxRunner(data, files[role], threads)) for role, data in self.content.items()}
        basis = basis_from_bytes(bundle.read(manifest.purifier.basis), manifest.purifier.basis)
        detector = OnnxRunner(bundle.read(manifest.detector.file), manifest.detector.file, threads)
        self.chain = FaceChain(
            Detector(detector),
            Purifier(settings, kernels_for(basis, settings, threads), self.taps.get(ANALYZER)),
            Recogniser(self.taps[RECOGNISER], manifest.recogniser),
        )

    def see(self, images: npt.NDArray[np.uint8], what: str = "") -> Seen:
        """All of (N, 112, 112) uint8 aligned faces; with ``what``, under a progress bar."""
        with self._listening():
            parts = self._recognise(images, what)
            tap = self.taps.get(ANALYZER)
            probabilities = np.concatenate(tap.said) if tap and tap.said else None
        raw, purified = (np.concatenate([getattr(part, name) for part in parts]) for name in ("raw", "purified"))
        return Seen(raw, purified, probabilities)

    def inputs(self, images: npt.NDArray[np.uint8], what: str) -> dict[str, Floats]:
        """What reaches each network for these faces: the recogniser gets them raw, and purified in all views."""
        with self._listening():
            self._recognise(images, what)
            return {role: np.concatenate(tap.heard or []) for role, tap in self.taps.items()}

    def _recognise(self, images: npt.NDArray[np.uint8], what: str) -> list[Recognised]:
        starts = range(0, len(images), BATCH)
        parts = []
        for start in progress(starts, what, len(starts)) if what else starts:
            crops = images[start : start + BATCH]
            numbers = list(range(start, start + len(crops)))
            parts.append(self.chain.recognise(crops, numbers, numbers))
        return parts

    @contextmanager
    def _listening(self) -> Iterator[None]:
        for tap in self.taps.values():
            tap.heard, tap.said = [], []
        try:
            yield
        finally:
            for tap in self.taps.values():
                tap.heard = tap.said = None

    @contextmanager
    def exchanged(self, networks: dict[str, bytes]) -> Iterator[None]:
        """Run other networks in place of the bundle's own until the block ends.

        Raises:
            BundleError: ONNX Runtime does not accept one.
        """
        own = {role: self.taps[role].inner for role in networks}
        try:
            for role, data in networks.items():
                self.taps[role].inner = OnnxRunner(data, f"the converted {role}", self._threads)
            yield
        finally:
            for role, runner in own.items():
                self.taps[role].inner = runner

    def close(self) -> None:
        """Stop the workers."""
        self.chain.close()

    def __enter__(self) -> TappedChain:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()


def embeddings(chain: TappedChain, role: str, data: bytes, images: npt.NDArray[np.uint8]) -> Floats:
    """(2 N, E) embeddings, raw and purified, of N faces with another network in its place.

    Raw ones are left out where only the analyzer changes: (N, E). What is not finite comes out as zeros, which agrees
    with nothing.
    """
    with chain.exchanged({role: data}):
        try:
            seen = chain.see(images)
        except ValueError:  # a network gave values that are not finite, or no probabilities: as wrong as can be
            nothing = np.zeros((len(images), chain.dimension), np.float32)
            return both(Seen(nothing, nothing), role)
    return both(seen, role)


def both(seen: Seen, role: str) -> Floats:
    """The embeddings that a network has a part in."""
    return seen.purified if role == ANALYZER else np.concatenate([seen.raw, seen.purified])
