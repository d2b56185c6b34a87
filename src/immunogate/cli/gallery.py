"""``immunogate gallery``: look at a gallery, remove a person, export."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from immunogate.cli.common import add_gallery, add_json, chosen_gallery, print_json

if TYPE_CHECKING:
    from immunogate.runtime.gallery import Sample


def add_parser(subparsers: Any) -> None:
    """Add the command and its parts."""
    parser = subparsers.add_parser("gallery", help="list, remove, export people", description="Work on a gallery.")
    parts = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    listing = parts.add_parser("list", help="who is enrolled")
    remove = parts.add_parser("remove", help="forget a person")
    export = parts.add_parser(
        "export", help="write all embeddings", description="Print all embeddings as JSON. They are biometric data."
    )
    for part, run in ((listing, run_list), (remove, run_remove), (export, run_export)):
        add_gallery(part)
        part.set_defaults(run=run)
    remove.add_argument("person", help="name as listed")
    add_json(listing)


def run_list(arguments: argparse.Namespace) -> int:
    """Who is enrolled, with how many pictures, since when."""
    from immunogate.runtime.gallery import Gallery

    with Gallery(chosen_gallery(arguments.gallery)) as gallery:
        people = gallery.people()
    if arguments.json:
        print_json([{"person": p.name, "embeddings": p.embeddings, "enrolled_at": _iso(p.enrolled_at)} for p in people])
        return 0
    for person in people:
        print(f"{person.name:<32}{person.embeddings:>4} pictures, last {_iso(person.enrolled_at)}")
    if not people:
        print("nobody is enrolled")
    return 0


def run_remove(arguments: argparse.Namespace) -> int:
    """Forget a person."""
    from immunogate.runtime.gallery import Gallery

    with Gallery(chosen_gallery(arguments.gallery)) as gallery:
        count = gallery.remove(arguments.person)
    print(f"{arguments.person} removed ({count} pictures)")
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    """All embeddings as JSON on stdout."""
    from immunogate.runtime.gallery import Gallery

    with Gallery(chosen_gallery(arguments.gallery)) as gallery:
        samples = gallery.samples()
    print_json([_plain(sample) for sample in samples])
    return 0


def _plain(sample: Sample) -> dict[str, Any]:
    return {
        "person": sample.person,
        "picture": sample.picture,
        "picture_sha256": sample.picture_sha256,
        "embedding": sample.embedding.tolist(),
    }


def _iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
