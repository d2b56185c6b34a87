"""What was evaluated and how, where, how to repeat it, what was left out, and where to sign."""

from __future__ import annotations

import hashlib
import json

from immunogate.calib.robustness.document import FILE_NAME, Document
from immunogate.calib.robustness.report.words import duration, moment, plural
from immunogate.pages.markup import Html, Part, element, join
from immunogate.pages.page import Section, definitions, listed, paragraph


def document_sha256(document: Document) -> str:
    """The SHA-256 of a document's values, however its file is laid out: keys sorted, no spaces, UTF-8."""
    text = json.dumps(document.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def setting_section(document: Document) -> Section:
    """Bundle, setting and environment."""
    return Section(
        "setting",
        "Setting and environment",
        join(
            [
                element("h3", "Bundle"), definitions(_bundle(document)),
                element("h3", "Setting"), definitions(_setting(document)),
                element("h3", "Environment"), definitions({**document.environment}),
            ]
        ),
    )  # fmt: skip


def commands_section(document: Document) -> Section:
    """What to type to get this again."""
    again = f"immunogate report {FILE_NAME}"
    return Section("commands", "Commands to repeat", element("pre", element("code", f"{document.command}\n{again}")))


def not_tested_section(document: Document) -> Section:
    """What was not tested, and that purification is no liveness detection."""
    fixed = (
        "Digital noise is no presentation attack (ISO/IEC 30107-3): nothing here says how the gate deals with photos, "
        "screens or masks held before the camera."
    )
    return Section("not-tested", "What was not tested", listed([*document.not_tested, fixed]))


def sign_section(document: Document) -> Section:
    """What a signature is for, and room for it."""
    bundle = document.bundle
    about = definitions(
        {
            "Bundle": bundle.model_id,
            "Manifest": _hash(bundle.manifest_sha256),
            "Document": _hash(document_sha256(document)),
        }
    )
    words = (
        "A signature stands for this bundle and these figures alone. The document's hash is the SHA-256 of "
        f"{FILE_NAME} with sorted keys and without spaces; ",
        element("code", "immunogate report --json"),
        " prints it.",
    )
    lines = (element("div", name) for name in ("Name", "Date", "Signature"))
    return Section("sign", "Sign-off", join([paragraph(*words), about, element("div", *lines, class_="sign")]))


def _hash(digits: str) -> Html:
    return element("span", digits, class_="hash")


def _bundle(document: Document) -> dict[str, Part]:
    bundle = document.bundle
    limits = bundle.calibration
    alarm = "none" if limits.alarm is None else f"{limits.alarm:.4g}"
    often = "" if limits.alarm_rate is None else f" ({limits.alarm_rate:.2g} of clean faces)"
    return {
        "Model": bundle.model_id, "Mode": bundle.mode, "Views": str(bundle.views),
        "Clones": f"{bundle.clones}, {bundle.kept} kept" if bundle.clones else "none are drawn",
        "Eigenfaces": f"{bundle.components:,}", "Precision": bundle.precision,
        "Runner and back end": f"{bundle.runner}, {bundle.backend}",
        "Calibration": f"{limits.status}: {limits.source}",
        "Threshold": f"{limits.threshold:.4f} at FMR {limits.fmr:g}", "Alarm limit": f"{alarm}{often}",
        "Manifest, SHA-256": _hash(bundle.manifest_sha256), "Embedding hash": _hash(bundle.embedding_hash),
    }  # fmt: skip


def _setting(document: Document) -> dict[str, Part]:
    setting = document.setting
    effort = ", ".join(plural(*each) for each in (
        (setting.steps, "step"), (setting.restarts, "restart"), (setting.eot, "draw")))  # fmt: skip
    return {
        "Protocol": setting.protocol, "Seed": str(setting.seed), "Photos": setting.photos,
        "Photos, SHA-256": _hash(setting.photos_sha256), "People": f"{setting.people:,}",
        "Genuine pairs": f"{setting.genuine_pairs:,}", "Impostor pairs": f"{setting.impostor_pairs:,}",
        "False match rate": f"{setting.fmr:g}",
        "Adaptive attacks": effort,
        "Lock-out": f"after {setting.lockout} tries", "Time taken": duration(document.seconds),
        "Made": moment(document.created),
    }  # fmt: skip
