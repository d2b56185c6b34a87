"""Engines for all networks of a bundle: what is up to date stays, what is not is built, written whole and recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from immunogate import __version__
from immunogate.bundle import Bundle
from immunogate.engines.compare import differences
from immunogate.engines.record import EngineError, EngineRecord, Flags, Machine
from immunogate.engines.store import engine_path, read_plan, read_record, write_engine
from immunogate.errors import ImmunogateError
from immunogate.export.engine.builder import Built
from immunogate.export.engine.plan import NetworkPlan
from immunogate.export.engine.progress import Show
from immunogate.files import read_bytes, sha256_of_bytes, write_whole
from immunogate.places import user_cache

log = logging.getLogger(__name__)

LARGEST_TIMING_CACHE = 1 << 30


class Builder(Protocol):
    """What builds one engine: `immunogate.export.engine.builder.EngineBuilder`."""

    def build(
        self,
        plan: NetworkPlan,
        flags: Flags,
        timing_cache: bytes | None = None,
        show: Show | None = None,
        stop: Callable[[], bool] = ...,
    ) -> Built:
        """Build it."""


@dataclass(frozen=True)
class Result:
    """One network.

    Attributes:
        record: side-car of its engine.
        path: of the engine.
        fresh: whether it was built now; else it was up to date.
        notes: what a person should know about the build.
    """

    record: EngineRecord
    path: Path
    fresh: bool
    notes: tuple[str, ...] = ()


def default_timing_cache(machine: Machine) -> Path:
    """Where what the builder measured is kept: one file for each TensorRT and each sort of GPU."""
    parts = (machine.tensorrt, machine.device_name, machine.compute_capability, machine.driver)
    key = sha256_of_bytes("\n".join(parts).encode())[:12]
    return user_cache() / "timing" / f"tensorrt-{machine.tensorrt}-{key}.cache"


def up_to_date(folder: Path, bundle: Bundle, plan: NetworkPlan, flags: Flags, machine: Machine) -> EngineRecord | None:
    """The side-car of an engine that is there and is exactly what would be built; else None."""
    try:
        record = read_record(folder, plan.network)
        if record is None or differences(record, bundle.manifest.files[plan.file].sha256, machine):
            return None
        if (record.flags, record.profiles, record.machine) != (flags, plan.profiles, machine):
            return None
        read_plan(folder, record)
    except ImmunogateError as error:
        log.info("%s", error)
        return None
    return record


def build_network(
    builder: Builder,
    bundle: Bundle,
    plan: NetworkPlan,
    flags: Flags,
    machine: Machine,
    folder: Path,
    timing_cache: Path | None = None,
    show: Show | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Build one network's engine into a folder. An interrupt leaves what stood there before.

    Args:
        builder: that builds it.
        bundle: whose network it is.
        plan: of the network.
        flags: settings that change the engine.
        machine: that it is for.
        folder: of the engines.
        timing_cache: file with what earlier builds measured; it is renewed. None for none.
        show: is told how far it is.
        stop: asked often whether to give up.

    Raises:
        EngineError: TensorRT does not take the network or can not build it.
        UsageError: a file can not be written.
        KeyboardInterrupt: it was asked to stop.
    """
    known = _measured_before(timing_cache)
    built = builder.build(plan, flags, known, show, stop)
    if not built.plan:
        raise EngineError(f"TensorRT gave an empty engine for {plan.file}", "Look at its words: immunogate -v build")
    record = EngineRecord(
        network=plan.network,
        model_id=bundle.manifest.model_id,
        bundle_sha256=bundle.sha256,
        onnx_file=plan.file,
        onnx_sha256=bundle.manifest.files[plan.file].sha256,
        precision=plan.precision,
        input_name=plan.input_name,
        profiles=plan.profiles,
        flags=flags,
        machine=machine,
        engine_sha256=sha256_of_bytes(built.plan),
        engine_bytes=len(built.plan),
        build_seconds=round(built.seconds, 3),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        built_by=__version__,
    )
    write_engine(folder, built.plan, record)
    notes = list(built.warnings)
    if timing_cache is not None:
        if built.foreign_cache:
            notes.append(f"the timing cache {timing_cache} was made elsewhere: it was neither used nor changed")
        elif built.timing_cache is not None and built.timing_cache != known:
            measured = built.timing_cache
            write_whole(timing_cache, lambda path: path.write_bytes(measured))
    return Result(record, engine_path(folder, plan.network), True, tuple(notes))


def _measured_before(path: Path | None) -> bytes | None:
    """The content of a timing cache, empty where a new one begins, None where none is wanted."""
    if path is None:
        return None
    return read_bytes(path, LARGEST_TIMING_CACHE) if path.is_file() else b""
