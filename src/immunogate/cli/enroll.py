"""``immunogate enroll``: add people to a gallery."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from immunogate.cli.common import (
    PICTURES,
    add_backend,
    add_bundle,
    add_gallery,
    add_json,
    add_runner,
    chosen_gallery,
    opened_bundle,
    pictures_of,
    print_json,
    progress,
    say_runners,
)
from immunogate.errors import UsageError


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "enroll",
        help="add people to a gallery",
        description="Add people to a gallery: FOLDER/<person>/*.jpg, or pictures of one --person. Either every "
        "accepted picture is added or, after an error, none; each refused picture is named with the reason. "
        "Embeddings are kept, no photos.",
    )
    add_bundle(parser)
    add_gallery(parser)
    add_backend(parser)
    add_runner(parser)
    parser.add_argument("--person", help="whose the pictures are, where they are not in folders by person")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="FOLDER|PICTURE", help="what to enroll")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Try every picture, then write all that were accepted at once."""
    from immunogate.runtime.chain import open_chain
    from immunogate.runtime.enroll import attempt_all
    from immunogate.runtime.gallery import Gallery

    bundle = opened_bundle(arguments.bundle)
    jobs = named_pictures(arguments.pictures, arguments.person)
    manifest = bundle.manifest
    binding = manifest.embedding_hash(), manifest.recogniser.embedding_dimension
    path = chosen_gallery(arguments.gallery, make_folder=True)
    if path.exists():
        Gallery(path, *binding).close()  # refuse another bundle's gallery before the work, not after
    with open_chain(bundle, backend=arguments.backend, runner=arguments.runner) as chain:
        say_runners(chain, arguments.runner)
        attempts = list(progress(attempt_all(chain, jobs), "enrolling", len(jobs)))
    samples = [attempt.sample for attempt in attempts if attempt.sample]
    added = 0
    if samples:
        with Gallery(path, *binding, create=True) as gallery:
            added = gallery.enroll(samples)
    refused = [attempt for attempt in attempts if attempt.sample is None]
    for attempt in refused:
        print(f"refused {attempt.picture} ({attempt.person}): {attempt.reason}", file=sys.stderr)
    people = sorted({sample.person for sample in samples})
    if arguments.json:
        print_json({
            "gallery": str(path),
            "pictures": len(jobs),
            "added": added,
            "already_there": len(samples) - added,
            "people": people,
            "refused": [{"picture": str(a.picture), "person": a.person, "reason": a.reason} for a in refused],
        })  # fmt: skip
    else:
        print(f"{path}: {added} pictures of {len(people)} people added, "
              f"{len(samples) - added} were there already, {len(refused)} refused")  # fmt: skip
    return 0 if samples else 1


def named_pictures(paths: list[Path], person: str | None) -> list[tuple[str, Path]]:
    """Who is on which picture.

    Raises:
        UsageError: a path is not there, or it does not say who is on a picture.
    """
    found: list[tuple[str, Path]] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"there is no {path}", "Give a folder or a picture")
        pictures = pictures_of(path) if path.is_dir() else [path]
        found += [(_person_of(picture, path, person), picture) for picture in pictures]
    return found


def _person_of(picture: Path, given: Path, person: str | None) -> str:
    if person:
        return person
    if given.is_dir() and picture.parent != given:
        return picture.relative_to(given).parts[0]
    if picture.suffix.lower() not in PICTURES:
        raise UsageError(f"{picture} is no picture", f"Known endings: {', '.join(sorted(PICTURES))}")
    raise UsageError(
        f"whose picture is {picture}?", "Name the person with --person, or use FOLDER/<person>/picture.jpg"
    )
