"""All parts in the order in which a reviewer needs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from immunogate.calib.robustness.document import Document, document_from
from immunogate.calib.robustness.report.adaptive import adaptive_section
from immunogate.calib.robustness.report.check import check_document
from immunogate.calib.robustness.report.clean import clean_section
from immunogate.calib.robustness.report.curves import curves_section, latency_section
from immunogate.calib.robustness.report.facts import commands_section, not_tested_section, setting_section, sign_section
from immunogate.calib.robustness.report.opening import opening
from immunogate.calib.robustness.report.panels import panels_section
from immunogate.calib.robustness.report.rows import rows_section
from immunogate.calib.robustness.report.signs import alarm_section, retries_section, sanity_section
from immunogate.calib.robustness.report.words import moment
from immunogate.files import write_whole
from immunogate.pages.page import page

_SECTIONS = (
    adaptive_section, curves_section, clean_section, panels_section, latency_section, alarm_section, retries_section,
    sanity_section, rows_section, setting_section, commands_section, not_tested_section, sign_section,
)  # fmt: skip


def report_page(document: Document) -> str:
    """The report as one HTML document that loads nothing and runs no script; same document, same text.

    Raises:
        InputError: figures of the document contradict each other.
    """
    check_document(document)
    foot = f"Made by {document.tool.name} {document.tool.version} from an evaluation of {moment(document.created)}."
    title = f"{document.verdict.status}: robustness of {document.bundle.model_id}"
    return page(title, opening(document), [section(document) for section in _SECTIONS], foot)


def write_report(document: Mapping[str, Any], path: Path) -> None:
    """Write the report of an evaluation, whole or not at all.

    Args:
        document: the plain values of ``robustness.json``.
        path: of the HTML file.

    Raises:
        InputError: it is no such document, or its figures contradict each other; says where.
        UsageError: the file can not be written.
    """
    text = report_page(document_from(document))
    write_whole(path, lambda temporary: temporary.write_bytes(text.encode("utf-8")))
