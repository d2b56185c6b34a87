"""The column of engines in ``immunogate verify``: opens those that are here, and says why where none can be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.errors import ImmunogateError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.engines.record import EngineRecord
    from immunogate.runtime.chain import FaceChain


@dataclass(frozen=True)
class Engines:
    """A chain with engines in it.

    Attributes:
        chain: with an engine for each network that has one; the others run on ONNX Runtime. None where none has.
        records: side-cars of those engines.
        reason: why none was opened; empty where one was.
    """

    chain: FaceChain | None
    records: dict[str, EngineRecord]
    reason: str = ""

    @property
    def precisions(self) -> dict[str, str]:
        """Of each network that is on an engine."""
        return {name: record.precision for name, record in self.records.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        hashes = {name: record.engine_sha256 for name, record in self.records.items()}
        return {"checked": self.chain is not None, "reason": self.reason or None, "sha256": hashes}


@contextmanager
def opened_engines(bundle: Bundle, folder: Path | None = None, index: int = 0) -> Iterator[Engines]:
    """The engines of a bundle that are found, in a chain.

    Args:
        bundle: already verified.
        folder: of the engines; by default the user's own.
        index: number of the GPU.

    Raises:
        EngineError: one is there and is stale, foreign or damaged.
    """
    from immunogate.engines.store import engines_folder, network_files, read_record
    from immunogate.kernels.device import open_device
    from immunogate.runtime.runners.tensorrt import load_tensorrt, open_engine

    try:
        _, machine = load_tensorrt(index)
        found = folder or engines_folder(bundle, machine.compute_capability)
    except ImmunogateError as error:  # no driver, no GPU, no TensorRT, no home
        yield Engines(None, {}, str(error))
        return
    records = {name: record for name in network_files(bundle) if (record := read_record(found, name)) is not None}
    if not records:
        yield Engines(None, {}, f"there is none in {found}. Build them: immunogate build {bundle.folder}")
        return
    with ExitStack() as stack:
        device = stack.enter_context(open_device(index))
        runners = {}
        for name in records:
            runners[name] = open_engine(bundle, name, device, found, index=index)
            stack.callback(runners[name].close)
        chain = stack.enter_context(chain_with(bundle, runners))
        yield Engines(chain, {name: runner.record for name, runner in runners.items()})


def chain_with(bundle: Bundle, runners: dict[str, Any]) -> FaceChain:
    """A bundle's chain whose networks run as given; those that are not given run on ONNX Runtime."""
    from immunogate.basis import basis_from_bytes
    from immunogate.engines.store import network_files
    from immunogate.runtime.chain import FaceChain, antibody_settings
    from immunogate.runtime.detect import Detector
    from immunogate.runtime.purify import Purifier, kernels_for
    from immunogate.runtime.recognise import Recogniser
    from immunogate.runtime.runners.onnx import OnnxRunner

    manifest = bundle.manifest
    files = network_files(bundle).items()
    all_of_them = {name: runners.get(name) or OnnxRunner(bundle.read(file), file) for name, file in files}
    basis = basis_from_bytes(bundle.read(manifest.purifier.basis), manifest.purifier.basis)
    settings = antibody_settings(manifest.purifier)
    return FaceChain(
        Detector(all_of_them["detector"]),
        Purifier(settings, kernels_for(basis, settings), all_of_them.get("analyzer")),
        Recogniser(all_of_them["recogniser"], manifest.recogniser),
    )
