"""What a run's decisions depended on besides the frames: enough to say later what is different now."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from immunogate.bundle import Bundle
from immunogate.files import sha256_of_bytes
from immunogate.kernels.launch import CudaKernels
from immunogate.runtime.chain import FaceChain
from immunogate.runtime.decide import Policy
from immunogate.runtime.gallery import Templates

PACKAGES = ("immunogate", "numpy", "onnxruntime")
"""Whose versions an antibody's last bit may depend on."""


def context_of(
    bundle: Bundle, chain: FaceChain, policy: Policy | None, templates: Templates | None, threads: int | None
) -> dict[str, Any]:
    """Plain data: bundle, embedding hash, mode, seed, back end, runners, threads, policy, gallery, machine, versions.

    Args:
        bundle: in use.
        chain: as it was opened.
        policy: what is asked for.
        templates: who is known; None where nobody is matched.
        threads: as asked for.
    """
    settings = chain.purifier.settings
    return {
        "bundle": bundle.sha256,
        "embedding_hash": bundle.manifest.embedding_hash(),
        "mode": settings.mode,
        "seed": settings.seed,
        "backend": "cuda" if isinstance(chain.purifier.kernels, CudaKernels) else "cpu",
        "runners": {runner.name: runner.kind for runner in chain.runners},
        "threads": threads,
        "policy": None if policy is None else asdict(policy),
        "gallery": None if templates is None else gallery_hash(templates),
        "machine": platform.machine(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def gallery_hash(templates: Templates) -> str:
    """One hash of who is known and by which templates."""
    names = "\0".join(templates.names).encode("utf-8", "surrogatepass")
    return sha256_of_bytes(names + b"\0\0" + np.asarray(templates.vectors, "<f4").tobytes())


def differences(recorded: dict[str, Any], now: dict[str, Any]) -> list[dict[str, Any]]:
    """What differs, leaf by leaf: ``what`` with dots, ``recorded`` and ``now``; None stands for not there."""
    before, after = _leaves(recorded), _leaves(now)
    return [
        {"what": name, "recorded": before.get(name), "now": after.get(name)}
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]


def _leaves(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            found.update(_leaves(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
