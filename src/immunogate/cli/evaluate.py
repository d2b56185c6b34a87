"""``immunogate evaluate``: how far attacks get at what is deployed."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from contextlib import ExitStack
from dataclasses import replace
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
)
from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.calib.robustness.document import BundleFacts, Document
    from immunogate.calib.robustness.evaluation import Asked
    from immunogate.calib.robustness.protocols import Protocol

INTERRUPTED = 130
STATE, REPORT = "state", "robustness.html"


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="attack a bundle and say how far attacks get",
        description="Attack a bundle as somebody would who knows all of it, and as somebody who knows less, on photos "
        "of people it has not seen; found pictures are shown to the exported networks. Writes robustness.json and a "
        "report. Exit status 1 where the attacks did not work or the bundle looks made up.",
    )
    add_bundle(parser, positional=True)
    parser.add_argument("photos", type=Path, help=f"{FACES_HELP}, of people who had no part in making the bundle")
    protocols = parser.add_mutually_exclusive_group()
    protocols.add_argument("--quick", action="store_true", help="two minutes; figures not to be quoted")
    protocols.add_argument("--full", action="store_true", help="all attacks with all their steps: many hours on a CPU")
    parser.add_argument(
        "--out", type=Path, default=Path("robustness"), metavar="FOLDER", help="for results (default ./robustness)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with what was stopped in that folder")
    parser.add_argument("--pairs", type=int, metavar="N", help="genuine pairs, and as many impostor pairs")
    parser.add_argument("--seed", type=int, default=0, help="of pairs and attacks (default 0)")
    parser.add_argument("--fmr", type=float, default=1e-3, help="false match rate of all thresholds (default 0.001)")
    parser.add_argument("--tiers", metavar="T,T", help="which, with commas: controls, oblivious, adaptive, ...")
    parser.add_argument("--modes", metavar="M,M", help="which configurations beside the bundle's own: none, fixed, ...")
    for role in ("basis", "recogniser", "purifier"):
        parser.add_argument(f"--{role}", type=Path, help=f"the {role}'s checkpoint, where it is not known here")
    add_backend(parser)
    add_runner(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Attack, write, report; exit status 1 where a check failed or something is flagged."""
    from immunogate.calib.robustness.document import FILE_NAME, write_document
    from immunogate.calib.robustness.evaluation import evaluated
    from immunogate.calib.robustness.memory import Memory
    from immunogate.calib.robustness.report import write_report
    from immunogate.cli.evaluate_progress import Bar

    bundle = opened_bundle(arguments.bundle)
    bundle.check()
    out = arguments.out
    if (out / FILE_NAME).exists():
        raise UsageError(f"{out / FILE_NAME} is there already", "Name another --out")
    with ExitStack() as stack:
        of, asked_for = _asked(stack, bundle, arguments)
        memory = Memory(out / STATE, asked_for, resume=arguments.resume)
        try:
            with Bar() as bar:
                document = evaluated(of, memory, bar)
        except KeyboardInterrupt:
            print(f"\nstopped and saved; go on with: {command_of(arguments)} --resume", file=sys.stderr)
            return INTERRUPTED
    write_document(document, out / FILE_NAME)
    write_report(document.to_dict(), out / REPORT)
    shutil.rmtree(out / STATE)
    if arguments.json:
        print_json(document.to_dict())
    else:
        print(to_text(document))
        print(f"written: {out / FILE_NAME}, {out / REPORT}")
    return 1 if document.verdict.status == "FAULTY" or document.verdict.flags else 0


def _asked(stack: ExitStack, bundle: Bundle, arguments: argparse.Namespace) -> tuple[Asked, dict[str, Any]]:
    """Everything opened, and what makes this evaluation this one."""
    import torch

    from immunogate.calib.robustness.document import SettingFacts
    from immunogate.calib.robustness.evaluation import Asked
    from immunogate.calib.robustness.pairs import posed
    from immunogate.cli.evaluate_gates import chosen_keys, frozen_twin, opened_gates, placement
    from immunogate.cli.evaluate_progress import environment
    from immunogate.cli.twin import ROLES
    from immunogate.files import sha256_of_file

    facts = _facts(bundle, arguments)
    budgets, tiers = _protocol(arguments), _tiers(arguments)
    faces, photos_hash = identified_faces(arguments.photos), sha256_of_file(arguments.photos)
    keys = chosen_keys(bundle, arguments.modes, budgets.configurations)
    problem = posed(faces, budgets.pairs, arguments.seed, budgets.faces_of_one)
    twin = frozen_twin(bundle, {role: getattr(arguments, role) for role in ROLES})
    gates, kinds = opened_gates(stack, bundle, twin, keys, arguments.seed, arguments.backend, arguments.runner)
    setting = SettingFacts(
        budgets.name, arguments.seed, arguments.photos.name, photos_hash, len(set(problem.identities.tolist())),
        len(problem.genuine), len(problem.impostors), arguments.fmr, budgets.steps, budgets.restarts, budgets.eot,
        budgets.lockout,
    )  # fmt: skip
    of = Asked(
        bundle.manifest,
        replace(facts, runner=", ".join(sorted(set(kinds.values())))),
        setting,
        command_of(arguments),
        environment(),
        problem,
        gates,
        keys,
        budgets,
        tiers,
        placement() if budgets.frame_levels else None,
    )
    return of, {
        "bundle": bundle.sha256, "photos": photos_hash, "protocol": budgets.name, "number of pairs": budgets.pairs,
        "seed": arguments.seed, "false match rate": arguments.fmr, "choice of tiers": list(tiers),
        "choice of modes": list(keys), "runner": kinds, "backend": arguments.backend,
        "release of torch": torch.__version__, "number of torch's threads": torch.get_num_threads(),
    }  # fmt: skip


def _protocol(arguments: argparse.Namespace) -> Protocol:
    from immunogate.calib.robustness.protocols import PROTOCOLS

    chosen = PROTOCOLS["quick" if arguments.quick else "full" if arguments.full else "standard"]
    if arguments.pairs is None:
        return chosen
    if arguments.pairs < 1:
        raise UsageError(f"--pairs must be at least 1, got {arguments.pairs}")
    most = arguments.pairs
    few = {name: min(getattr(chosen, name), most) for name in ("random_pairs", "square_pairs", "hop_pairs")}
    return replace(chosen, pairs=most, **few)


def _tiers(arguments: argparse.Namespace) -> tuple[str, ...]:
    from immunogate.calib.robustness.protocols import TIERS

    protocol = _protocol(arguments)
    if arguments.tiers is None:
        return protocol.tiers
    wanted = {word.strip() for word in arguments.tiers.split(",")}
    if unknown := sorted(wanted - set(TIERS)):
        raise UsageError(f"--tiers {unknown[0]!r} is none", f"Choose among {', '.join(TIERS)}")
    return tuple(tier for tier in TIERS if tier in wanted)


def _facts(bundle: Bundle, arguments: argparse.Namespace) -> BundleFacts:
    """What the document says of the bundle; its calibration has to be there."""
    from immunogate.calib.robustness.document import BundleFacts, CalibrationFacts

    manifest, calibration = bundle.manifest, bundle.calibration()
    purifier, drawn = manifest.purifier, manifest.purifier.mode in ("sample", "select")
    selects = purifier.mode == "select"
    return BundleFacts(
        model_id=manifest.model_id,
        embedding_hash=manifest.embedding_hash(),
        manifest_sha256=bundle.sha256,
        mode=purifier.mode,
        views=manifest.recogniser.views,
        clones=purifier.clones if selects else int(drawn),
        kept=purifier.keep if selects else int(drawn),
        components=purifier.components,
        precision=manifest.recogniser.precision,
        runner=arguments.runner,
        backend=arguments.backend,
        calibration=CalibrationFacts(
            calibration.status,
            calibration.source,
            arguments.fmr,
            calibration.at(arguments.fmr).threshold,
            calibration.alarm,
            calibration.alarm_rate,
        ),
    )


def command_of(arguments: argparse.Namespace) -> str:
    """The command with all that its result depends on."""
    words = ["immunogate", "evaluate"] + ([str(arguments.bundle)] if arguments.bundle else []) + [str(arguments.photos)]
    words += [f"--{name}" for name in ("quick", "full") if getattr(arguments, name)]
    for name in (
        "out",
        "pairs",
        "seed",
        "fmr",
        "tiers",
        "modes",
        "basis",
        "recogniser",
        "purifier",
        "backend",
        "runner",
    ):
        if (value := getattr(arguments, name)) is not None:
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def to_text(document: Document) -> str:
    """The verdict and the bundle's own rows."""
    lines = [*document.verdict.words, ""]
    lines.append(f"{'attack':<34}{'goal':<15}{'eps':>5}{'configuration':>15}  {'twin':<20}{'deployed':<20}")
    for row in document.rows:
        size = "" if row.eps is None else f"{row.eps:g}"
        rates = [_cell(rate.accepted, rate.of, rate.rate) if rate else "-" for rate in (row.twin, row.deployed)]
        lines.append(f"{row.attack:<34}{row.goal:<15}{size:>5}{row.configuration:>15}  {rates[0]:<20}{rates[1]:<20}")
    checks = [f"{'ok' if check.passed else 'FAILED':<7}{check.name}: {check.words}" for check in document.sanity.checks]
    return "\n".join([*lines, "", *checks, "", *(f"not tested: {words}" for words in document.not_tested)])


def _cell(accepted: int, of: int, rate: float) -> str:
    return f"{rate:.3f} ({accepted}/{of})"
