"""The torch twin of a bundle, from the checkpoints that it was exported from, found by their hash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from immunogate.errors import ImmunogateError, UsageError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.export.sources import Sources
    from immunogate.networks.twin import TorchTwin

ROLES = ("basis", "recogniser", "purifier")


def twin_of(bundle: Bundle, named: Mapping[str, Path | None], *, own_basis: bool = False) -> TorchTwin:
    """The networks in full precision, in the bundle's own mode; arguments and errors as `sources_of`."""
    from immunogate.networks.twin import TorchTwin

    manifest, sources = bundle.manifest, sources_of(bundle, named, own_basis=own_basis)
    mode, top_k, views = manifest.purifier.mode, manifest.purifier.top_k, manifest.recogniser.views
    return TorchTwin(sources.recogniser, sources.spec, sources.basis, mode, top_k, sources.purifier, views)


def sources_of(bundle: Bundle, named: Mapping[str, Path | None], *, own_basis: bool = False) -> Sources:
    """What the bundle's torch twin is made of.

    Args:
        bundle: an opened bundle.
        named: checkpoints by role, as they were named; None where they are to be found.
        own_basis: take the eigenfaces as the bundle stores them. A public eigenbasis is needed all the same: its order
            is that of the purifier's outputs.

    Raises:
        UsageError: a checkpoint is not known here.
        ImmunogateError: a checkpoint is not the one that the bundle was exported from.
        InputError: a checkpoint is not what it should be.
    """
    from immunogate.export.description import description_of
    from immunogate.export.sources import PUBLIC_SUFFIXES, load_sources

    manifest = bundle.manifest
    checkpoints = manifest.provenance.get("checkpoints", {})
    public = Path(str(checkpoints.get("basis", {}).get("file", ""))).suffix in PUBLIC_SUFFIXES
    stored = own_basis and not public and not named.get("basis")
    roles = ([] if stored else ["basis"]) + ["recogniser"] + (["purifier"] if manifest.analyzer else [])
    paths = {role: checkpoint_of(bundle, role, named.get(role)) for role in roles}
    if stored:
        bundle.read(manifest.purifier.basis)  # verified
        paths["basis"] = bundle.folder / manifest.purifier.basis
    described = manifest.provenance.get("recogniser_description")
    return load_sources(
        paths["basis"],
        paths["recogniser"],
        manifest.recogniser.architecture,
        paths.get("purifier"),
        float(manifest.provenance.get("memory_temperature", 1.0)),
        None if described is None else description_of(described, "manifest.json: provenance.recogniser_description"),
    )


def checkpoint_of(bundle: Bundle, role: str, named: Path | None) -> Path:
    """The checkpoint of a role: the one named, the one remembered, or one of this checkout; by the manifest's hash.

    Raises:
        UsageError: it is not known here.
        ImmunogateError: the one named is another.
    """
    from immunogate.export.known_checkpoints import find
    from immunogate.files import sha256_of_file

    entry = bundle.manifest.provenance.get("checkpoints", {}).get(role, {})
    expected = str(entry.get("sha256", ""))
    path = named or find(expected) or _in_this_checkout(expected)
    if path is None:
        made_from = f"{entry.get('file', 'unknown')}, sha256 {expected[:16]}"
        raise UsageError(
            f"the {role} checkpoint of this bundle ({made_from}) is not known here", f"Name it: --{role} PATH"
        )
    if sha256_of_file(path) != expected:
        raise ImmunogateError(f"{path} is not the {role} this bundle was exported from (sha256 {expected[:16]}...)")
    return path


def _in_this_checkout(expected: str) -> Path | None:
    """The shipped bundle's checkpoints lie in the repository, not in the wheel."""
    from importlib.resources import files

    from immunogate.files import sha256_of_file

    folder = Path(str(files("immunogate"))) / "training" / "weights"
    return next((path for path in sorted(folder.glob("*.pt")) if sha256_of_file(path) == expected), None)
