"""Prebuilt kernels in the package: machine code for the known architectures, bound by hashes to the sources.

``make cubin`` writes them into ``kernels/cuda/cubin``; they are carried by wheels and not kept in the repository.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from immunogate.files import write_whole

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_110", "sm_120")
"""Turing, A100, desktop Ampere, Orin, Ada, Hopper, Blackwell of data centres, Thor, desktop Blackwell."""

ON_CHIP = ("sm_72", "sm_87", "sm_101", "sm_110")
"""Jetsons and their like: their code runs on no other architecture, and they run no other's."""

MANIFEST = "manifest.json"


class NoCubinError(Exception):
    """There is no prebuilt code that may be used; the text says why."""


def prebuilt(name: str, architecture: str, source_sha256: str, folder: Path) -> bytes:
    """Machine code from the package.

    Args:
        name: of the kernel file.
        architecture: of the device; code for an earlier minor version of the same major one is taken where there is
            none for its own (CUDA programming guide, binary compatibility).
        source_sha256: hash of the sources as they are now.
        folder: with the manifest.

    Raises:
        NoCubinError: there is none, it was made of other sources, or it is damaged.
    """
    entries = _manifest(folder).get(name)
    if not isinstance(entries, dict):
        raise NoCubinError("the package holds no prebuilt kernels of this name")
    if entries.get("source") != source_sha256:
        raise NoCubinError("the prebuilt kernels were made of other sources")
    hashes: dict[str, str] = entries.get("cubins", {})
    fitting = [made for made in hashes if _runs_on(made, architecture)]
    if not fitting:
        raise NoCubinError(f"no prebuilt kernel runs on {architecture}")
    best = max(fitting, key=_number)
    try:
        code = (folder / f"{name}.{best}.cubin").read_bytes()
    except OSError as error:
        raise NoCubinError(f"the prebuilt kernel for {best} can not be read: {error.strerror}") from error
    if hashlib.sha256(code).hexdigest() != hashes[best]:
        raise NoCubinError(f"the prebuilt kernel for {best} is damaged")
    return code


def write_prebuilt(folder: Path, toolkit: str, made: dict[str, tuple[str, dict[str, bytes]]]) -> None:
    """Write machine code and manifest, and take away what stood there before.

    Args:
        folder: made where it is not there.
        toolkit: compiler and version, for the record.
        made: for each kernel file the hash of its sources, and its code for each architecture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.cubin"), *folder.glob(MANIFEST)):
        old.unlink()
    kernels = {}
    for name, (source, codes) in made.items():
        for architecture, code in codes.items():
            (folder / f"{name}.{architecture}.cubin").write_bytes(code)
        hashes = {architecture: hashlib.sha256(code).hexdigest() for architecture, code in codes.items()}
        kernels[name] = {"source": source, "cubins": hashes}
    text = json.dumps({"toolkit": toolkit, "kernels": kernels}, indent=1) + "\n"
    write_whole(folder / MANIFEST, lambda path: path.write_text(text, encoding="utf-8"))


def carried(folder: Path) -> list[str]:
    """The architectures for which every kernel has prebuilt code, whatever its sources; none without a manifest."""
    entries = [set(entry.get("cubins", {})) for entry in _manifest(folder).values()]
    return sorted(set.intersection(*entries), key=_number) if entries else []


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["kernels"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _runs_on(made: str, device: str) -> bool:
    if made == device:
        return True
    if made in ON_CHIP or device in ON_CHIP:
        return False
    return _number(made) // 10 == _number(device) // 10 and _number(made) <= _number(device)


def _number(architecture: str) -> int:
    digits = re.fullmatch(r"sm_(\d+)", architecture)
    return int(digits[1]) if digits else -1
