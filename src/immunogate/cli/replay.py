"""``immunogate replay``: make a recorded decision once more, and say what is different."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.audit_flags import EVIDENCE_HELP
from immunogate.cli.common import (
    add_backend,
    add_bundle,
    add_gallery,
    add_json,
    add_runner,
    opened_bundle,
    print_json,
    progress,
)
from immunogate.errors import AuditError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.runtime.audit.replay import Replay
    from immunogate.runtime.gallery import Templates


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "replay",
        help="make a recorded decision once more",
        description="The same crop, seed and bundle give the same antibody, bit for bit, and the same outcome. Says "
        "what differs, and what can not be replayed. 0: all that was replayed is the same.",
    )
    parser.add_argument("decision_id", metavar="DECISION_ID", help="as in the decision's JSON line")
    parser.add_argument("--audit", metavar="FILE", type=Path, required=True, help="the record of decisions")
    parser.add_argument("--evidence", metavar="KEYFILE", help=EVIDENCE_HELP)
    add_bundle(parser)
    add_gallery(parser)
    add_backend(parser)
    add_runner(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Verify the record, open the bundle as it was opened, recognise and compare."""
    from immunogate.runtime.audit.context import context_of, differences
    from immunogate.runtime.audit.evidence import key_from
    from immunogate.runtime.audit.reading import AuditReader
    from immunogate.runtime.audit.replay import read_decision, replay
    from immunogate.runtime.audit.verify import verify
    from immunogate.runtime.chain import open_chain

    key = None if arguments.evidence is None else key_from(arguments.evidence)
    with AuditReader(arguments.audit) as reader:
        whole = verify(reader, watch=lambda rows, total: progress(rows, "verify", total))
        if whole.problem:
            raise AuditError(f"{arguments.audit}: {whole.problem}", "What was changed can not be replayed")
        recorded = read_decision(reader, arguments.decision_id)
        was = recorded.context
        bundle = opened_bundle(arguments.bundle)
        templates = _templates(bundle, arguments.gallery)
        with open_chain(
            bundle,
            mode=was["mode"],
            seed=was["seed"],
            threads=was["threads"],
            backend=arguments.backend,
            runner=arguments.runner,
        ) as chain:
            found = replay(reader, recorded, chain, templates, key)
            now = context_of(bundle, chain, None, templates, was["threads"])
    left_out = {"policy"} if templates is not None else {"policy", "gallery"}
    differing = differences(*({k: v for k, v in one.items() if k not in left_out} for one in (was, now)))
    differing += _threshold(bundle, was)
    report = {
        "decision_id": arguments.decision_id,
        "sequence": recorded.record.sequence,
        "same": found.is_same,
        "compared": found.compared,
        "not_replayed": found.missing,
        "differences": differing,
    }
    if arguments.json:
        print_json(report)
    else:
        print(to_text(recorded.decision, found, differing))
    return 0 if found.is_same else 1


def to_text(decision: dict[str, Any], found: Replay, differing: list[dict[str, Any]]) -> str:
    """What was recorded, what came out now, and what differs."""
    lines = [f"{decision['decision_id']}  {decision['outcome']} ({decision['reason']}), {decision['decided_at']}", ""]
    for one in found.compared:
        now = "the same" if one["same"] else f"NOW {one['now']}"
        lines.append(f"{one['what']:<20}{one['recorded']!s:<30.28}{now}")
    lines += [f"not replayed: {what}" for what in found.missing]
    lines += [f"differs: {one['what']} was {one['recorded']}, is {one['now']}" for one in differing]
    verdict = "all that was replayed is the same" if found.is_same else "NOT the same"
    return "\n".join([*lines, verdict if found.compared else "nothing could be replayed"])


def _templates(bundle: Bundle, named: Path | None) -> Templates | None:
    """Of the gallery that was named, else of the user's own if there is one for this bundle."""
    from immunogate.errors import ImmunogateError
    from immunogate.places import default_gallery
    from immunogate.runtime.gallery import Gallery

    try:
        path = named or default_gallery()
        with Gallery(path, bundle.manifest.embedding_hash()) as gallery:
            return gallery.templates()
    except ImmunogateError as error:
        if named is not None:
            raise
        print(f"no gallery: {error.what}", file=sys.stderr)
        return None


def _threshold(bundle: Bundle, was: dict[str, Any]) -> list[dict[str, Any]]:
    """The recorded threshold, where it is none of those that the bundle has now."""
    calibration, policy = bundle.manifest.calibration, was.get("policy")
    now = [] if calibration is None else [one.threshold for one in calibration.thresholds]
    if policy is None or policy["threshold"] in now:
        return []
    return [{"what": "threshold", "recorded": policy["threshold"], "now": f"the bundle has {now}"}]
