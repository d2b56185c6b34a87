"""A software bill of materials of what is installed: CycloneDX 1.6, JSON (ECMA-424).

From the metadata that installers leave (`importlib.metadata`), so it says what is here and not what was asked for.
"""

from __future__ import annotations

import re
import uuid
from datetime import datetime, timezone
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

ROOT = "immunogate"
LONGEST_LICENCE = 80
"""Characters of a licence's name; some packages put the whole text there."""


def bill_of_materials(root: str = ROOT) -> dict[str, Any]:
    """The document.

    Optional parts of the root package count where they are installed, with the scope ``optional``; those of its
    dependencies do not. Environment markers are not looked at: what is installed is here for a reason.

    Args:
        root: name of the installed package to begin from.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    top = _plain(root)
    found, edges = _installed(top, distribution(root))
    needed = _reached(
        top, {name: [other for other, optional in wanted if not optional] for name, wanted in edges.items()}
    )
    references = {name: _reference(item) for name, item in found.items()}
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "component": _component(found[top], "application"),
        },
        "components": [
            {**_component(found[name], "library"), "scope": "required" if name in needed else "optional"}
            for name in sorted(found)
            if name != top
        ],
        "dependencies": [
            {"ref": references[name], "dependsOn": sorted(references[other] for other, _ in wanted)}
            for name, wanted in sorted(edges.items())
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(sorted(references.values())))
    return {**document, "serialNumber": f"urn:uuid:{serial}"}


Edges = dict[str, list[tuple[str, bool]]]
"""Of each package, what it asks for that is installed, and whether only an extra asks for it."""


def _installed(top: str, root: Distribution) -> tuple[dict[str, Distribution], Edges]:
    found, edges = {top: root}, Edges()
    waiting = [top]
    while waiting:
        name = waiting.pop()
        edges[name] = []
        for other, optional in _requirements(found[name]).items():
            if optional and name != top:
                continue
            try:
                item = found.get(other) or distribution(other)
            except PackageNotFoundError:
                continue
            if other not in found:
                found[other] = item
                waiting.append(other)
            edges[name].append((other, optional))
    return found, edges


def _reached(top: str, edges: dict[str, list[str]]) -> set[str]:
    reached, waiting = {top}, [top]
    while waiting:
        new = set(edges[waiting.pop()]) - reached
        reached |= new
        waiting += new
    return reached


def _requirements(item: Distribution) -> dict[str, bool]:
    """Name of each requirement, and whether only extras ask for it."""
    wanted: dict[str, bool] = {}
    for text in item.requires or ():
        name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", text)
        if name:
            plain = _plain(name.group())
            wanted[plain] = wanted.get(plain, True) and "extra" in text.partition(";")[2]
    return wanted


def _component(item: Distribution, kind: str) -> dict[str, Any]:
    reference = _reference(item)
    component = {"type": kind, "bom-ref": reference, "name": item.name, "version": item.version, "purl": reference}
    licences = _licences(item)
    return {**component, "licenses": licences} if licences else component


def _licences(item: Distribution) -> list[dict[str, Any]]:
    expression, classifiers, stated = (
        item.metadata.get_all(field) or [] for field in ("License-Expression", "Classifier", "License")
    )
    if expression:
        return [{"expression": expression[0]}]
    names = [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: ")]
    if not names:
        names = [
            text.strip() for text in stated if 0 < len(text.strip()) <= LONGEST_LICENCE and "\n" not in text.strip()
        ]
    return [{"license": {"name": name}} for name in names]


def _reference(item: Distribution) -> str:
    """Package URL (purl-spec, type pypi)."""
    return f"pkg:pypi/{_plain(item.name)}@{item.version}"


def _plain(name: str) -> str:
    """A name as the index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
