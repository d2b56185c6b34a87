"""The report of an evaluation that somebody reads and signs: one HTML file out of ``robustness.json``."""

from __future__ import annotations

from immunogate.calib.robustness.report.whole import report_page, write_report

__all__ = ["report_page", "write_report"]
