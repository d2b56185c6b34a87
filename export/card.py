"""The model card that goes into every bundle."""

from __future__ import annotations

from typing import Any

from immunogate.export.sources import Sources
from immunogate.manifest import PurifierEntry


def model_card(
    sources: Sources, purifier: PurifierEntry, views: int, license_text: str, provenance: dict[str, Any]
) -> str:
    """Markdown: what is inside, where it comes from, what it is for and what it is not."""
    basis = provenance["basis"]
    analyzer = "none (mode fixed needs no network)"
    if sources.purifier is not None:
        gate = ", with a gate for the remainder" if sources.purifier.gated else ""
        analyzer = f"architecture {sources.purifier.architecture}, reads the {sources.purifier.reads}{gate}"
    fitted = f"fitted on {basis['samples']:,} faces" if basis["samples"] else "fitted on faces that are not stated"
    rows = "\n".join(
        f"| {role} | {entry['file']} | `{entry['sha256']}` |" for role, entry in provenance["checkpoints"].items()
    )
    storage_cost = (
        f"{basis['storage_rms_grey_levels']} grey levels rms, {basis['storage_max_grey_levels']} at most; "
        f"{basis['storage_measured_on']}"
    )
    looks = f", mean of {views} views" if views > 1 else ""
    weights = f"embeddings of {sources.spec.embedding_dimension} values; weights of {sources.spec.source}{looks}"
    return f"""# Model card

A face gate's bundle: every face is rebuilt from a chosen part of {purifier.components} eigenfaces before an unmodified
recogniser sees it.

| part | what |
|---|---|
| detector | {provenance["checkpoints"]["detector"]["file"]}, with the outputs of a YuNet: boxes and five landmarks |
| purifier | mode {purifier.mode}; analyzer: {analyzer} |
| eigenbasis | {purifier.components} eigenfaces, {fitted}, stored as {purifier.storage} ({storage_cost}) |
| recogniser | {sources.spec.name}, {weights} |

Made from:

| role | file | SHA-256 |
|---|---|---|
{rows}

Licence of the weights: {license_text}.

## What it is for, and what it is not

Purification takes away much of an adversarial perturbation made for this recogniser. It is no liveness detection: a
photo or a screen held before the camera passes through it unharmed. An attacker who knows the whole defence succeeds
more often than one who does not. Thresholds hold for the people and cameras they were measured on; calibrate on yours.
"""
