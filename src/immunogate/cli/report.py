"""``immunogate report``: draw the report of an evaluation again from its JSON."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from immunogate.cli.common import add_json, print_json


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "report",
        help="draw the report of an evaluation again",
        description="Draw the report of an evaluation from its JSON: one HTML file that loads nothing and runs no "
        "script, to be read, printed and signed.",
    )
    parser.add_argument("document", type=Path, metavar="ROBUSTNESS.json", help="what immunogate evaluate wrote")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="the report (left out: beside the JSON)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read, check, draw, write."""
    from immunogate.calib.robustness.document import read_document
    from immunogate.calib.robustness.report.facts import document_sha256
    from immunogate.calib.robustness.report.whole import write_report
    from immunogate.errors import InputError, UsageError
    from immunogate.files import sha256_of_file

    try:
        document = read_document(arguments.document)
    except OverflowError as error:  # a whole number of hundreds of digits where a float belongs
        raise InputError(f"{arguments.document} holds a number that is too large") from error
    out = arguments.document.with_suffix(".html") if arguments.out is None else arguments.out
    if out.exists() and out.samefile(arguments.document):
        raise UsageError(f"{out} is the document itself", "Give --out FILE.html")
    write_report(document.to_dict(), out)
    if arguments.json:
        facts = {"report": str(out), "report_sha256": sha256_of_file(out), "document_sha256": document_sha256(document)}
        print_json({**facts, "status": document.verdict.status})
    else:
        print(out)
        print(f"verdict: {document.verdict.status}", file=sys.stderr)
    return 0
