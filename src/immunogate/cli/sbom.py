"""``immunogate sbom``: what is installed, as a software bill of materials."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from immunogate.errors import UsageError


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "sbom",
        help="list what is installed, as CycloneDX",
        description="Write a software bill of materials of this installation, CycloneDX 1.6 as JSON: the package and "
        "everything it depends on, with versions and licences.",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where to (left out: stdout)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Collect and write."""
    from immunogate.files import write_whole
    from immunogate.sbom import bill_of_materials

    try:
        document = bill_of_materials()
    except PackageNotFoundError as error:
        raise UsageError(
            "immunogate runs from its sources and is not installed", "Install it: pip install ."
        ) from error
    text = json.dumps(document, indent=1) + "\n"
    if arguments.out is None:
        print(text, end="")
    else:
        write_whole(arguments.out, lambda path: path.write_text(text, encoding="utf-8"))
        print(f"{arguments.out}: {len(document['components'])} components")
    return 0
