"""What the reader sees first: whose report it is and what it comes to, in plain words."""

from __future__ import annotations

from immunogate.calib.robustness.document import Document, Status
from immunogate.calib.robustness.report.words import duration, moment
from immunogate.pages.markup import Html, element, join
from immunogate.pages.page import Kind, band, listed, paragraph

KINDS: dict[Status, Kind] = {"FAULTY": "fault", "BROKEN": "bad", "WEAK": "warn", "HOLDS": "good"}


def opening(document: Document) -> Html:
    """Heading and verdict."""
    tool, setting = document.tool, document.setting
    when, took = moment(document.created), duration(document.seconds)
    return join(
        [
            paragraph("Robustness of a face gate under adversarial attack", class_="kicker"),
            element("h1", document.bundle.model_id),
            paragraph(f"{when}, {tool.name} {tool.version}, protocol {setting.protocol}, {took}", class_="kicker"),
            _verdict(document),
        ]
    )


def _verdict(document: Document) -> Html:
    verdict, checks = document.verdict, document.sanity.checks
    first, *rest = verdict.words or ("No verdict was written.",)
    headline = first.removeprefix(f"{verdict.status}: ")
    rest += [flag for flag in verdict.flags if not any(flag in word for word in verdict.words)]
    failed = sum(not check.passed for check in checks)
    doubt = f"{failed} of {len(checks)} checks of the attacks failed: see Sanity." if failed else None
    return band(
        KINDS[verdict.status],
        f"Verdict: {verdict.status}",
        paragraph(headline[:1].upper() + headline[1:], class_="lead"),
        listed([*rest, *([doubt] if doubt else [])]) if rest or doubt else None,
    )
