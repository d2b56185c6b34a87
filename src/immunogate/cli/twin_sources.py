"""The checkpoints that a bundle was made from: named, or remembered on this machine, and held to their hashes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from immunogate.errors import ImmunogateError, UsageError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.export.sources import Sources


def twin_sources(bundle: Bundle, named: Mapping[str, Path | None]) -> Sources:
    """What the bundle's torch twin is made of.

    Args:
        bundle: opened.
        named: checkpoints by role (basis, recogniser, purifier); None where it is to be found by its hash.

    Raises:
        UsageError: a checkpoint is not known here.
        ImmunogateError: a file is not the one that the bundle was exported from.
    """
    from immunogate.export.description import description_of
    from immunogate.export.sources import load_sources

    manifest = bundle.manifest
    roles = ["basis", "recogniser"] + (["purifier"] if manifest.analyzer else [])
    paths = {role: checkpoint(bundle, role, named.get(role)) for role in roles}
    described = manifest.provenance.get("recogniser_description")
    return load_sources(
        paths["basis"],
        paths["recogniser"],
        manifest.recogniser.architecture,
        paths.get("purifier"),
        float(manifest.provenance.get("memory_temperature", 1.0)),
        None if described is None else description_of(described, "manifest.json: provenance.recogniser_description"),
    )


def checkpoint(bundle: Bundle, role: str, named: Path | None) -> Path:
    """The checkpoint of a role: the one named, or the one remembered; it must have the hash in the manifest.

    Raises:
        UsageError: it is not known here.
        ImmunogateError: the file has another hash.
    """
    from immunogate.export.known_checkpoints import find
    from immunogate.files import sha256_of_file

    entry = bundle.manifest.provenance.get("checkpoints", {}).get(role, {})
    expected = str(entry.get("sha256", ""))
    path = named or find(expected)
    if path is None:
        made_from = f"{entry.get('file', 'unknown')}, sha256 {expected[:16]}"
        raise UsageError(
            f"the {role} checkpoint of this bundle ({made_from}) is not known here", f"Name it: --{role} PATH"
        )
    if sha256_of_file(path) != expected:
        raise ImmunogateError(f"{path} is not the {role} this bundle was exported from (sha256 {expected[:16]}...)")
    return path
