"""``immunogate calibrate clones``: the mode, and the number of clones, that hold most within a budget of time."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.common import (
    FACES_HELP,
    add_backend,
    add_bundle,
    add_json,
    add_runner,
    identified_faces,
    opened_bundle,
    print_json,
    progress,
    step,
)
from immunogate.errors import ImmunogateError, UsageError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.calib.clone_budget import Setting, Tried
    from immunogate.cli.clone_attacks import Strength
    from immunogate.cli.clone_measure import People
    from immunogate.export.sources import Sources
    from immunogate.manifest import Manifest

CAUTION = (
    "settings were chosen on these very people: their figures are not to be quoted for unseen ones; see immunogate "
    "evaluate"
)


def add_parser(parts: Any) -> None:
    """Add the part."""
    parser = parts.add_parser(
        "clones",
        help="mode and number of clones within a budget of time",
        description="Measure latency and robustness of every mode and number of clones on this device, mark those that "
        "no other one beats, and write the most robust one within the budget into the bundle, with thresholds of its "
        "own. A mode that draws clones has to be clearly better. Attacks take minutes a setting. Galleries have to be "
        "enrolled anew where the setting changes.",
    )
    add_bundle(parser, positional=True)
    parser.add_argument("faces", type=Path, help=FACES_HELP)
    parser.add_argument(
        "--budget-ms", type=float, required=True, metavar="MS",
        help="that 99 of 100 faces may take, one at a time, through purifier and recogniser",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write a changed copy there, not the bundle itself")
    parser.add_argument("--dry-run", action="store_true", help="measure and report, and write nothing")
    parser.add_argument("--modes", type=_words, metavar="LIST", help="some of all, with commas (left out: all)")
    parser.add_argument("--clones", type=_numbers, metavar="LIST", help="drawn (left out: 1,4,16,64,256,1000)")
    parser.add_argument("--kept", type=_numbers, metavar="LIST", help="of the drawn ones (left out: 1,2,4,8)")
    parser.add_argument("--components", type=_numbers, metavar="LIST", help="eigenfaces of mode fixed (left out: four)")
    parser.add_argument("--pairs", type=int, default=24, metavar="N", help="people to attack (default 24)")
    parser.add_argument("--levels", type=int, default=2, help="largest change of a pixel, of 255 (default 2)")
    parser.add_argument("--steps", type=int, default=20, help="of the attacks (default 20)")
    parser.add_argument("--draws", type=int, default=4, help="gradients a step where clones are drawn (default 4)")
    parser.add_argument("--threshold-faces", type=int, default=200, metavar="N", help="at most (default 200)")
    parser.add_argument("--rounds", type=int, default=50, help="faces timed of each setting (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default 0)")
    for role in ("basis", "recogniser", "purifier"):
        parser.add_argument(f"--{role}", type=Path, help="checkpoint, where it is not remembered here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw latency against robustness, .png or .svg")
    parser.add_argument(
        "--force", action="store_true", help="measure on faces that would be refused; the manifest says so"
    )
    add_backend(parser)
    add_runner(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> list[int]:
    return [int(word) for word in _words(text)]


def run(arguments: argparse.Namespace) -> int:
    """Measure all, choose, write, report."""
    from immunogate.calib.clone_budget import alike, choose
    from immunogate.cli.calibrate_clones_report import plot_front, to_data, to_text
    from immunogate.cli.calibrate_measure import refuse_unfit
    from immunogate.cli.calibrate_report import check_picture
    from immunogate.cli.clone_measure import divided

    _check(arguments)
    check_picture(arguments.plot)
    bundle = opened_bundle(arguments.bundle)
    settings = _settings(bundle, arguments)
    faces = identified_faces(arguments.faces)
    people = divided(faces, arguments.threshold_faces, arguments.pairs, arguments.seed)
    refuse_unfit(bundle, arguments.faces, _asked(arguments))
    sources, why = _sources(bundle, arguments)
    tried = _tried(bundle, settings, people, sources, arguments)
    chosen: Tried | None = None
    problem: ImmunogateError | None = None
    try:
        chosen = choose(tried, arguments.budget_ms, was_attacked=sources is not None)
    except ImmunogateError as error:
        problem = error
    manifest = _written(bundle, chosen, arguments) if chosen else None
    others = alike(tried, chosen, arguments.budget_ms) if chosen else []
    if arguments.plot:
        plot_front(tried, chosen, arguments.budget_ms, arguments.plot)
    if arguments.json:
        print_json(to_data(tried, chosen, others, arguments.budget_ms, why, manifest))
    else:
        print(to_text(tried, chosen, others, arguments.budget_ms, why))
    print(CAUTION, file=sys.stderr)
    if problem is not None:
        raise problem
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.bundle is None and arguments.out is None and not arguments.dry_run:
        raise UsageError("the shipped bundle is not changed in place", "Give --out FOLDER, or --dry-run")
    if arguments.out is not None and arguments.out.exists():
        raise UsageError(f"{arguments.out} is there already", "Name a folder that is not")
    if not arguments.budget_ms > 0:
        raise UsageError(f"--budget-ms must be above 0, got {arguments.budget_ms:g}")
    for name in ("pairs", "levels", "steps", "draws", "threshold_faces", "rounds"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(arguments, name)}")
    if arguments.seed < 0:
        raise UsageError(f"--seed must not be negative, got {arguments.seed}")


def _settings(bundle: Bundle, arguments: argparse.Namespace) -> list[Setting]:
    from immunogate.calib.clone_budget import CLONES, KEPT, settings_of

    manifest = bundle.manifest
    return settings_of(
        manifest.purifier,
        manifest.analyzer is not None,
        arguments.modes,
        arguments.clones or CLONES,
        arguments.kept or KEPT,
        arguments.components,
    )


def _sources(bundle: Bundle, arguments: argparse.Namespace) -> tuple[Sources | None, str]:
    """The checkpoints for attacks with gradients; where they or torch are missing, nothing, and why."""
    from immunogate.cli.twin import sources_of

    named = any(getattr(arguments, role) for role in ("basis", "recogniser", "purifier"))
    try:
        return sources_of(bundle, vars(arguments)), ""
    except (UsageError, ModuleNotFoundError) as error:
        if named:
            raise
        reason = str(error)
    print(f"warning: no attacks with gradients: {reason}", file=sys.stderr)
    return None, f"only clean faces and faces with noise were measured, no attack: {reason}"


def _tried(
    bundle: Bundle, settings: list[Setting], people: People, sources: Sources | None, arguments: argparse.Namespace
) -> list[Tried]:
    import numpy as np

    from immunogate.calib.clone_budget import Tried
    from immunogate.calib.curves import rate_of
    from immunogate.cli.clone_attacks import Strength, noisy, on_the_recogniser
    from immunogate.cli.clone_measure import ATTACKED_FROM, accepted, as_set, own_threshold, purified, timed
    from immunogate.runtime.chain import open_chain

    strength = Strength(arguments.levels, arguments.steps, arguments.draws, arguments.seed)
    shown = noisy(people.probes, strength)
    if sources is not None:
        with step("attacking the recogniser alone"):
            shown = on_the_recogniser(sources, bundle, people.enrolled, people.probes, strength)
    found = []
    with ExitStack() as stack:
        options = {"backend": arguments.backend, "runner": arguments.runner}
        chains = [stack.enter_context(open_chain(as_set(bundle, setting), **options)) for setting in settings]
        spent = timed(chains, people.probes, arguments.rounds)
        for setting, chain, times in progress(list(zip(settings, chains, spent, strict=True)), "settings"):
            threshold = own_threshold(chain, people, str(setting))
            templates = purified(chain, people.enrolled, "")
            probes = purified(chain, people.probes, "", len(people.probes))
            replayed = purified(chain, shown, "", ATTACKED_FROM)
            p50, p99 = (float(value) for value in np.percentile(times, [50, 99]))
            rates = [rate_of(accepted(templates, seen, threshold)) for seen in (probes, replayed)]
            one = Tried(setting, p50, p99, len(times), threshold, *rates)
            if sources is not None and p99 <= arguments.budget_ms:
                attacked = _adaptive(bundle, setting, people, sources, strength)
                seen = purified(chain, attacked, "", 2 * ATTACKED_FROM)
                one = dataclasses.replace(one, adaptive=rate_of(accepted(templates, seen, threshold)))
            found.append(one)
    return found


def _adaptive(bundle: Bundle, setting: Setting, people: People, sources: Sources, strength: Strength) -> Any:
    from immunogate.cli.clone_attacks import through_the_defence

    return through_the_defence(sources, bundle, setting, people.enrolled, people.probes, strength)


def _asked(arguments: argparse.Namespace) -> Any:
    from immunogate.cli.calibrate_measure import Asked

    return Asked(arguments.backend, arguments.runner, force=arguments.force)


def _written(bundle: Bundle, chosen: Tried, arguments: argparse.Namespace) -> Manifest | None:
    """The bundle with the chosen setting and thresholds of its own; None where nothing is to be written."""
    from immunogate.bundle import write_manifest
    from immunogate.cli.calibrate import to_be_changed
    from immunogate.cli.calibrate_measure import measured
    from immunogate.cli.clone_measure import as_set

    if arguments.dry_run:
        return None
    before = bundle.manifest.embedding_hash()
    with to_be_changed(bundle, arguments.out) as target:
        changed = target if chosen.setting.entry(bundle.manifest.purifier) == bundle.manifest.purifier else (
            as_set(target, chosen.setting)
        )  # fmt: skip
        manifest, _ = measured(changed, arguments.faces, _asked(arguments))
        manifest = _named(manifest, bundle.manifest.purifier.mode, chosen, arguments)
        write_manifest(target.folder, manifest)
    if manifest.embedding_hash() != before:
        print("the setting changed: galleries enrolled before are refused now, enroll anew", file=sys.stderr)
    return manifest


def _named(manifest: Manifest, before: str, chosen: Tried, arguments: argparse.Namespace) -> Manifest:
    """Say in the manifest how the setting was chosen, and in the name which mode it is."""
    said = {
        "budget_ms": arguments.budget_ms,
        "setting": str(chosen.setting),
        "p50_ms": round(chosen.p50_ms, 3),
        "p99_ms": round(chosen.p99_ms, 3),
        "faces": arguments.faces.name,
        "caution": CAUTION,
    }
    name = manifest.model_id.replace(f"-{before}-", f"-{manifest.purifier.mode}-")
    return dataclasses.replace(manifest, model_id=name, provenance={**manifest.provenance, "clones": said})
