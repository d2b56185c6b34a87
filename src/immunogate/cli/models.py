"""``immunogate models``: the bundle that ships, and open parts for bundles of one's own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.common import add_json, print_json
from immunogate.errors import ImmunogateError, UsageError

if TYPE_CHECKING:
    from immunogate.recipes import Recipe

SHIPPED = "default"
"""What the bundle is called that is used where none is named."""


def add_parser(subparsers: Any) -> None:
    """Add the command and its parts."""
    parser = subparsers.add_parser(
        "models",
        help="the shipped bundle, and open parts to fetch",
        description="The bundle that ships is used wherever --bundle is left out. Other open parts are fetched from "
        "their makers, pinned by length and SHA-256; nothing is fetched that was not asked for.",
    )
    parts = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    listing = parts.add_parser("list", help="what ships and what can be fetched")
    install = parts.add_parser(
        "install",
        help="fetch a part",
        description="Fetch a part over https and check it. Ctrl-C keeps what has come; the next try goes on from it. "
        "Proxies are taken from the environment.",
    )
    install.add_argument("name", help="as listed")
    install.add_argument("--to", type=Path, metavar="FOLDER", help="where to (default: the user's data folder)")
    install.add_argument("--from", dest="source", type=Path, metavar="FILE", help="take this file, without a network")
    verify = parts.add_parser("verify", help="hash again what is here")
    path = parts.add_parser("path", help="where the bundle or a part lies", description="Print a path, for scripts.")
    path.add_argument("name", nargs="?", help="as listed (left out: the bundle)")
    for part, run in ((listing, run_list), (install, run_install), (verify, run_verify), (path, run_path)):
        add_json(part)
        part.set_defaults(run=run)


def run_list(arguments: argparse.Namespace) -> int:
    """What ships, what can be fetched, what is here."""
    from immunogate.places import installed_models

    bundle = describe_bundle()
    parts = [_describe(recipe, installed_models()) for recipe in _recipes().values()]
    if arguments.json:
        print_json({"bundle": bundle, "parts": parts})
        return 0
    print(bundle_to_text(bundle))
    print("\nopen parts for bundles of your own: immunogate models install NAME")
    for part in parts:
        print(
            f"\n{part['name']:<10}{part['role']}, {part['licence']}, {part['bytes']:,} bytes, {part['state']}\n"
            f"          {part['about']}\n          {part['url']}\n          sha256 {part['sha256']}"
        )
    return 0


def run_install(arguments: argparse.Namespace) -> int:
    """Fetch one part."""
    from immunogate.download import copy_from
    from immunogate.places import installed_models
    from immunogate.recipes import recipe_named

    if arguments.name == SHIPPED:
        raise UsageError("the default bundle ships with the package and is not fetched", "See immunogate models list")
    recipe = recipe_named(arguments.name, _recipes())
    folder = arguments.to or installed_models()
    if arguments.source:
        path, is_new = copy_from(recipe, arguments.source, folder)
    else:
        path, is_new = _fetch(recipe, folder)
    if arguments.json:
        print_json({"name": recipe.name, "path": str(path), "new": is_new, "sha256": recipe.sha256})
    else:
        print(f"{path}: {'verified and installed' if is_new else 'is there already, and whole'} ({recipe.licence})")
    return 0


def _fetch(recipe: Recipe, folder: Path) -> tuple[Path, bool]:
    """With a progress bar where stderr is a terminal."""
    from tqdm import tqdm

    from immunogate.download import fetch

    print(f"{recipe.name}: {recipe.bytes:,} bytes from {recipe.url}", file=sys.stderr)
    with tqdm(
        total=recipe.bytes, desc=recipe.name, unit="B", unit_scale=True, disable=None, file=sys.stderr, leave=False
    ) as bar:

        def report(done: int) -> None:
            if bar.n == 0 and done > (1 << 16):  # what came in an earlier run says nothing of today's speed
                bar.initial = done
            bar.update(done - bar.n)

        try:
            return fetch(recipe, folder, report)
        except KeyboardInterrupt:
            print(f"what has come is kept: immunogate models install {recipe.name} goes on from it", file=sys.stderr)
            raise


def run_verify(arguments: argparse.Namespace) -> int:
    """Hash the bundle and everything installed; exit status 1 where something is missing or damaged."""
    from immunogate.places import installed_models

    bundle = describe_bundle()
    parts = [_describe(recipe, installed_models()) for recipe in _recipes().values()]
    passed = bundle["state"] == "whole" and all(part["state"] != "damaged" for part in parts)
    if arguments.json:
        print_json({"passed": passed, "bundle": bundle, "parts": parts})
    else:
        print(f"{SHIPPED:<10}{bundle['state']}  {bundle.get('detail') or bundle['path']}")
        for part in parts:
            print(f"{part['name']:<10}{part['state']}  {part['path'] or ''}".rstrip())
    return 0 if passed else 1


def run_path(arguments: argparse.Namespace) -> int:
    """Where something lies."""
    from immunogate.default_models import default_bundle
    from immunogate.download import is_installed
    from immunogate.places import installed_models
    from immunogate.recipes import recipe_named

    name = arguments.name or SHIPPED
    if name == SHIPPED:
        path = default_bundle()
    else:
        recipe = recipe_named(name, _recipes())
        path = installed_models() / recipe.file
        if not is_installed(recipe, path):
            raise UsageError(f"{name} is not installed", f"Run: immunogate models install {name}")
    if arguments.json:
        print_json({"name": name, "path": str(path)})
    else:
        print(path)
    return 0


def describe_bundle() -> dict[str, Any]:
    """The default bundle: state (whole, damaged or absent), path, and what its manifest says."""
    from immunogate.bundle import open_bundle
    from immunogate.default_models import default_bundle, shipped_bundle

    try:
        folder = default_bundle()
    except UsageError as error:
        return {"name": SHIPPED, "state": "absent", "path": None, "detail": str(error)}
    report: dict[str, Any] = {"name": SHIPPED, "path": str(folder), "ships": folder == shipped_bundle()}
    try:
        bundle = open_bundle(folder)
        manifest = bundle.manifest
        report |= {
            "model_id": manifest.model_id,
            "licence": manifest.license,
            "mode": manifest.purifier.mode,
            "bytes": sum(entry.bytes for entry in manifest.files.values()),
            "sha256": bundle.sha256,
            "calibration": manifest.calibration.status if manifest.calibration else None,
        }
        bundle.check()
    except ImmunogateError as error:
        return report | {"state": "damaged", "detail": str(error)}
    return report | {"state": "whole"}


def bundle_to_text(report: dict[str, Any]) -> str:
    """The default bundle for a person."""
    if report["state"] == "absent":
        return f"{SHIPPED:<10}absent: {report['detail']}"
    if report["state"] == "damaged":
        return f"{SHIPPED:<10}DAMAGED: {report['detail']}"
    calibration = {"measured": "calibrated", "provisional": "provisional threshold", None: "NOT calibrated"}
    return (
        f"{SHIPPED:<10}{report['model_id']}, mode {report['mode']}, {report['licence']}, {report['bytes']:,} bytes, "
        f"{calibration[report['calibration']]}, whole\n"
        f"          {report['path']}{'' if report['ships'] else ' (named by IMMUNOGATE_BUNDLE)'}\n"
        f"          sha256 {report['sha256']}"
    )


def _describe(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """A part, and whether it is installed, damaged or not installed."""
    from dataclasses import asdict

    from immunogate.download import is_installed

    path = folder / recipe.file
    try:
        state = "installed" if is_installed(recipe, path) else "not installed"
    except UsageError:
        state = "damaged"
    return {**asdict(recipe), "state": state, "path": None if state == "not installed" else str(path)}


def _recipes() -> dict[str, Recipe]:
    from immunogate.recipes import RECIPES

    return RECIPES
