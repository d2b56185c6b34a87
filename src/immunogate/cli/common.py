"""What several commands share: faces to work on, progress, output."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from immunogate.errors import InputError, UsageError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.faces_file import AlignedFaces
    from immunogate.runtime.chain import FaceChain, Recognised

T = TypeVar("T")
PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
BATCH = 16
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
FACES_HELP = "aligned faces: an .npz with images (N,112,112) uint8 and identities"


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag --json."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_bundle(parser: argparse.ArgumentParser, *, positional: bool = False) -> None:
    """The flag --bundle, or the bundle as a word; either may be left out."""
    words: dict[str, Any] = {"type": Path, "help": "the bundle (left out: the one that ships)"}
    if positional:
        parser.add_argument("bundle", nargs="?", **words)
    else:
        parser.add_argument("--bundle", **words)
    parser.add_argument(
        "--require-signature", type=Path, action="append", metavar="PUBLIC.pem",
        help="open the bundle only if this key signed it; given again, one of these keys "
        "(IMMUNOGATE_TRUSTED_KEYS asks for all commands)",
    )  # fmt: skip


def add_backend(parser: argparse._ActionsContainer) -> None:
    """The flag --backend."""
    parser.add_argument(
        "--backend",
        choices=("cpu", "cuda", "auto"),
        default="cpu",
        help="where faces are purified; auto: a GPU where one can be used (default cpu)",
    )


def add_runner(parser: argparse._ActionsContainer) -> None:
    """The flag --runner."""
    from immunogate.runtime.runners.choose import RUNNERS

    parser.add_argument(
        "--runner",
        choices=RUNNERS,
        default="cpu",
        help="what runs the networks; auto: a GPU where one can be used and gives the CPU's numbers (default cpu)",
    )


def say_runners(chain: FaceChain, asked: str) -> dict[str, str]:
    """What runs each network, by its file; said on stderr, with the reasons, where the CPU was not asked for."""
    from immunogate.runtime.summary import runners_to_text

    kinds = {runner.name: runner.kind for runner in chain.runners}
    if asked != "cpu":
        print(f"runner: {runners_to_text(kinds)}", file=sys.stderr)
        # One reason a runner is enough: what keeps it from one network mostly keeps it from all.
        first = dict(pair for runner in reversed(chain.runners) for pair in runner.passed_over)
        for reason, runners in grouped(first).items():
            print(f"  not {', '.join(runners)}: {reason}", file=sys.stderr)
    return kinds


def grouped(reasons: dict[str, str]) -> dict[str, list[str]]:
    """The names that share each reason, in their order."""
    shared: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        shared.setdefault(reason, []).append(name)
    return shared


def opened_bundle(named: Path | None) -> Bundle:
    """The bundle that was named, else the default one, which is said on stderr.

    Raises:
        UsageError: there is none.
        BundleError: its manifest is damaged.
    """
    from immunogate.bundle import open_bundle
    from immunogate.default_models import default_bundle

    if named is not None:
        return open_bundle(named)
    bundle = open_bundle(default_bundle())
    print(f"bundle: {bundle.manifest.model_id} ({bundle.folder})", file=sys.stderr)
    return bundle


def add_gallery(parser: argparse.ArgumentParser) -> None:
    """The flag --gallery, which may be left out."""
    parser.add_argument("--gallery", type=Path, help="SQLite file (left out: gallery.db in the user's data folder)")


def chosen_gallery(named: Path | None, *, make_folder: bool = False) -> Path:
    """The gallery that was named, else the user's own, which is said on stderr.

    Args:
        named: from the command line.
        make_folder: make the user's folder where it is not there, for nobody else to read.

    Raises:
        UsageError: the user has no home folder, it can not be written, or nobody was enrolled yet.
    """
    from immunogate.places import default_gallery

    if named is not None:
        return named
    path = default_gallery()
    if make_folder:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{path.parent} can not be made: {error.strerror}", "Give --gallery FILE") from error
    elif not path.is_file():
        raise UsageError(f"there is no gallery of your own yet ({path})", "Make one: immunogate enroll FOLDER")
    print(f"gallery: {path}", file=sys.stderr)
    return path


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items, with a progress bar on stderr where that is a terminal."""
    from tqdm import tqdm

    bar: Iterator[T] = iter(tqdm(items, desc=what, total=total, disable=None, file=sys.stderr, leave=False))
    return bar


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say on stderr what is being done and how long it took."""
    import time

    start = time.perf_counter()
    print(f"{what} ...", file=sys.stderr, flush=True)
    yield
    print(f"{what}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(data, indent=2, allow_nan=False))


def pictures_of(folder: Path) -> list[Path]:
    """The pictures in a folder and its folders, sorted by path.

    Raises:
        UsageError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", "Give a folder of pictures")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    if not found:
        raise UsageError(
            f"there is no picture in {folder}", f"Known endings: {', '.join(sorted(PICTURES))}, in FOLDER/<person>/"
        )
    return found


def identified_faces(path: Path) -> AlignedFaces:
    """Aligned faces that say whose they are.

    Raises:
        UsageError: there is no such file.
        InputError: it is no file of aligned faces, or has no identities.
    """
    from immunogate.faces_file import load_aligned_faces

    faces = load_aligned_faces(path)
    if faces.identities is None:
        raise InputError(f"{path} does not say whose faces it holds", "Add the key 'identities', (N,) text")
    return faces


def recognise_all(
    chain: FaceChain, images: np.ndarray[Any, np.dtype[np.uint8]], what: str, first: int = 0
) -> list[Recognised]:
    """The chain over (N, 112, 112) aligned faces, in batches, with a progress bar.

    Face number = frame number, counted from ``first``: faces with other numbers get other clones.
    """
    starts = range(0, len(images), BATCH)
    results = []
    for start in progress(starts, what, len(starts)):
        batch = images[start : start + BATCH]
        numbers = list(range(first + start, first + start + len(batch)))
        results.append(chain.recognise(batch, numbers, numbers))
    return results


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add ``--set`` for settings that have no flag of their own."""
    parser.add_argument("--set", action="append", metavar="NAME=VALUE", help="any other setting, once for each")


def assigned(words: list[str] | None, usual: Any) -> dict[str, Any]:
    """``NAME=VALUE`` words as settings, each value of the type that it has in ``usual``, a dataclass.

    Raises:
        UsageError: a word names no setting, or its value is of another type.
    """
    defaults = dataclasses.asdict(usual)
    values: dict[str, Any] = {}
    for word in words or []:
        name, equals, text = word.partition("=")
        if not equals or name not in defaults:
            raise UsageError(
                f"--set {word!r} names no setting", f"Expected NAME=VALUE, NAME one of {', '.join(defaults)}"
            )
        kind: Any = type(defaults[name])
        try:
            values[name] = _WORDS[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError):
            raise UsageError(f"--set {word!r}: {name} must be of type {kind.__name__}") from None
    return values
