"""Where engines lie, and how they are written and read: whole, hashed, with their side-cars."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from immunogate.bundle import Bundle
from immunogate.engines.record import NETWORKS, EngineError, EngineRecord
from immunogate.errors import UsageError
from immunogate.files import read_bytes, sha256_of_bytes, write_whole
from immunogate.places import user_cache

LARGEST_ENGINE = 4 << 30
"""Largest engine that is read, in bytes."""

LARGEST_RECORD = 1 << 20

_OTHERS_WRITE = stat.S_IWOTH


def network_files(bundle: Bundle) -> dict[str, str]:
    """The ONNX file of each network that the bundle has, in the order of `NETWORKS`."""
    manifest = bundle.manifest
    entries = (manifest.detector, manifest.analyzer, manifest.recogniser)
    return {name: entry.file for name, entry in zip(NETWORKS, entries, strict=True) if entry is not None}


def engines_folder(bundle: Bundle, compute_capability: str) -> Path:
    """Where the engines of a bundle are kept for one sort of GPU: in the user's cache, since bundles may be read-only.

    The name holds the bundle's identifier, a hash over its networks and the compute capability, so that a home folder
    that several machines share does not mix them up. A calibration keeps the name.

    Raises:
        UsageError: the user has no home.
    """
    manifest = bundle.manifest
    hashes = "".join(manifest.files[file].sha256 for file in network_files(bundle).values())
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", manifest.model_id)[:80]
    capability = compute_capability.replace(".", "")
    return user_cache() / "engines" / f"{plain}-{sha256_of_bytes(hashes.encode())[:12]}-sm{capability}"


def engine_path(folder: Path, network: str) -> Path:
    """The engine of a network."""
    return folder / f"{network}.engine"


def record_path(folder: Path, network: str) -> Path:
    """The side-car beside it."""
    return folder / f"{network}.engine.json"


def write_engine(folder: Path, plan: bytes, record: EngineRecord) -> Path:
    """Write an engine and its side-car; an engine counts only once its side-car names its hash.

    Raises:
        UsageError: the folder can not be written.
    """
    path, beside = engine_path(folder, record.network), record_path(folder, record.network)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} can not be made: {error.strerror}", "Give --out FOLDER") from error
    write_whole(path, lambda to: to.write_bytes(plan))
    write_whole(beside, lambda to: to.write_text(record.to_json(), encoding="utf-8"))
    return path


def read_record(folder: Path, network: str) -> EngineRecord | None:
    """The side-car of a network's engine, or None where none was built.

    Raises:
        EngineError: it is damaged, or others may write it.
    """
    path = record_path(folder, network)
    if not path.is_file():
        return None
    _expect_private(folder, path)
    text = read_bytes(path, LARGEST_RECORD).decode("utf-8", errors="replace")
    record = EngineRecord.from_json(text, str(path))
    if record.network != network:
        raise EngineError(f"{path} is the side-car of another network: {record.network}", _again(network))
    return record


def read_plan(folder: Path, record: EngineRecord) -> bytes:
    """The engine that a side-car describes; the bytes that were hashed are the bytes that are given.

    Raises:
        EngineError: it is missing, its length or hash is another, or others may write it.
    """
    path = engine_path(folder, record.network)
    if not path.is_file():
        raise EngineError(f"{path} is missing, its side-car is there", _again(record.network))
    _expect_private(folder, path)
    data = read_bytes(path, LARGEST_ENGINE)
    if len(data) != record.engine_bytes:
        raise EngineError(
            f"{path} has {len(data):,} bytes, its side-car says {record.engine_bytes:,}", _again(record.network)
        )
    actual = sha256_of_bytes(data)
    if actual != record.engine_sha256:
        raise EngineError(
            f"{path} does not have the hash in its side-car: expected {record.engine_sha256[:16]}, got {actual[:16]}",
            f"It was damaged or exchanged: do not use it. {_again(record.network)}",
        )
    return data


def _again(network: str) -> str:
    return f"Build it again: immunogate build --network {network}"


def _expect_private(folder: Path, path: Path) -> None:
    """An engine is code: whoever may write it, or its folder, may run what he likes in the gate."""
    for item in (folder, path):
        about = item.stat()
        foreign = about.st_uid not in (0, os.getuid())
        if foreign or about.st_mode & _OTHERS_WRITE:
            why = "belongs to another user" if foreign else "can be written by every user"
            mend = "Build it as the gate's own user: immunogate build" if foreign else f"Run: chmod o-w {item}"
            raise EngineError(f"{item} {why}, so it is not trusted", mend)
