"""``immunogate audit``: verify, list, export and prune a record of decisions."""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.audit_flags import add_limits, limits_of
from immunogate.cli.common import add_json, print_json, progress
from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.runtime.audit.reading import AuditReader, Wanted
    from immunogate.runtime.audit.verify import Verification

OUTCOMES = ("allow", "deny", "alarm")
KINDS = ("run", "decision", "actuation", "prune")


def add_parser(subparsers: Any) -> None:
    """Add the command and its parts."""
    parser = subparsers.add_parser(
        "audit", help="verify, list, export, prune a record of decisions", description="Work on a record of decisions."
    )
    parts = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    check = parts.add_parser("verify", help="whether any record was changed, moved or taken out; 1 if so")
    listing = parts.add_parser("list", help="what was decided")
    export = parts.add_parser("export", help="write the records as JSON lines")
    pruning = parts.add_parser("prune", help="forget old records; the rest still verifies")
    for part, run in ((check, run_verify), (listing, run_list), (export, run_export), (pruning, run_prune)):
        part.add_argument("audit", metavar="FILE", type=Path, help="as given to immunogate run --audit")
        part.set_defaults(run=run)
    check.add_argument("--head", metavar="SEQUENCE:DIGEST", help="noted before: the chain has to go through it")
    for part in (listing, export):
        _add_wanted(part)
    listing.add_argument("--last", metavar="N", type=int, help="only the newest N of them")
    export.add_argument("--out", metavar="FILE", type=Path, help="instead of stdout")
    add_limits(pruning)
    for part in (check, listing, pruning):
        add_json(part)
    key = parts.add_parser("key", help="make a key for crops")
    key.add_argument("key", metavar="KEYFILE", type=Path, help="a new file; only its owner can read it")
    key.set_defaults(run=run_key)


def _add_wanted(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", metavar="TIME", help="2026-11-23 or 2026-11-23T08:30:00Z; UTC")
    parser.add_argument("--until", metavar="TIME", help="likewise; itself not included")
    parser.add_argument("--person", help="allowed or not")
    parser.add_argument("--outcome", choices=OUTCOMES, help="of a decision")
    parser.add_argument("--kind", choices=KINDS, help="of the record (default: all)")


def run_verify(arguments: argparse.Namespace) -> int:
    """Go along the chain."""
    from immunogate.runtime.audit.reading import AuditReader
    from immunogate.runtime.audit.verify import verify

    with AuditReader(arguments.audit) as reader:
        found = verify(reader, arguments.head, lambda rows, total: progress(rows, "verify", total))
    if arguments.json:
        print_json({"file": str(arguments.audit), **found.to_dict()})
    else:
        print(verification_to_text(arguments.audit, found))
    return 1 if found.problem else 0


def verification_to_text(path: Path, found: Verification) -> str:
    """A few lines for people."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.kinds.items()) or "none"
    lines = [f"{path}: {found.records} records fit ({kinds}), {found.crops} crops"]
    if found.anchor:
        lines.append(f"pruned through {found.anchor}")
    if found.clock_set_back:
        lines.append(f"the clock went back {found.clock_set_back} times; the order is that of the sequence")
    lines.append(f"head {found.head[0]}:{found.head[1]}")
    where = "the file" if found.problem_at is None else f"record {found.problem_at}"
    lines.append(f"DOES NOT FIT at {where}: {found.problem}" if found.problem else "the chain is whole")
    return "\n".join(lines)


def run_list(arguments: argparse.Namespace) -> int:
    """One line for each record."""
    from immunogate.runtime.audit.reading import AuditReader

    wanted = _wanted(arguments)
    if arguments.last is not None and arguments.last < 1:
        raise UsageError(f"--last must be at least 1, got {arguments.last}")
    with AuditReader(arguments.audit) as reader:
        rows: Iterable[dict[str, Any]] = _chosen(reader, wanted)
        if arguments.last is not None:
            rows = deque(rows, arguments.last)
        if arguments.json:
            print_json(list(rows))
        else:
            for data in rows:
                print(_line(data))
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    """One JSON line for each record, with its digest."""
    from immunogate.files import write_whole
    from immunogate.runtime.audit.reading import AuditReader

    wanted = _wanted(arguments)
    with AuditReader(arguments.audit) as reader:
        lines = (json.dumps(data, allow_nan=False) + "\n" for data in _chosen(reader, wanted))
        if arguments.out is None:
            sys.stdout.writelines(lines)
        else:
            write_whole(arguments.out, lambda path: _write_lines(path, lines))
            print(f"{arguments.out}", file=sys.stderr)
    return 0


def run_prune(arguments: argparse.Namespace) -> int:
    """Forget what is beyond the limits."""
    from immunogate.runtime.audit.log import AuditLog
    from immunogate.runtime.audit.retention import prune

    limits = limits_of(arguments)
    if limits is None:
        raise UsageError("nothing was said to be forgotten", "Give --keep-days, --keep-mb or --keep-crops-days")
    if not arguments.audit.is_file():
        raise UsageError(f"there is no record of decisions {arguments.audit}")
    with AuditLog(arguments.audit) as audit:
        pruned = prune(audit, limits)
    if arguments.json:
        print_json({"records": pruned.records, "crops": pruned.crops})
    else:
        print(f"{pruned.records} records and {pruned.crops} crops of kept records forgotten")
    return 0


def run_key(arguments: argparse.Namespace) -> int:
    """Make a key."""
    from immunogate.runtime.audit.evidence import make_key

    make_key(arguments.key)
    print(f"{arguments.key}: without it no crop opens again; keep a copy elsewhere", file=sys.stderr)
    return 0


def _wanted(arguments: argparse.Namespace) -> Wanted:
    from immunogate.runtime.audit.reading import Wanted, moment

    since, until = (None if text is None else moment(text) for text in (arguments.since, arguments.until))
    return Wanted(since, until, arguments.person, arguments.outcome, arguments.kind)


def _chosen(reader: AuditReader, wanted: Wanted) -> Iterator[dict[str, Any]]:
    for record, _ in progress(reader.rows(), "read", reader.count()):
        data = record.data()
        if wanted.has(data):
            yield {**data, "digest": record.digest.hex()}


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(lines)


def _line(data: dict[str, Any]) -> str:
    head = f"{data['sequence']:>8}  {data['recorded_at']}  "
    decision = data.get("decision")
    if decision:
        crop = "  crop" if "evidence" in data else ""
        who = decision["person"] or "nobody"
        return f"{head}{decision['outcome']:<6}{decision['reason']:<14}{who:<20}{decision['decision_id']}{crop}"
    if data["kind"] == "actuation":
        return f"{head}relay {data['result']:<14}{data['detail']:<20}{data['of']}"
    if data["kind"] == "prune":
        return f"{head}prune {data['records']} records, {data['crops']} crops"
    return f"{head}{data['kind']}   settings {data.get('context', '')[:12]}"
