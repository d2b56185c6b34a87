"""The flags of ``immunogate run`` for the record of decisions, and what they open."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.runtime.audit.settle import Settlement
    from immunogate.runtime.chain import FaceChain
    from immunogate.runtime.decide import Policy
    from immunogate.runtime.gallery import Templates

EVIDENCE_HELP = "key of the crops: a file that only its owner can read, or env:NAME (immunogate audit key makes one)"


def add_audit(parser: argparse.ArgumentParser) -> None:
    """The flags of run."""
    group = parser.add_argument_group("the record of decisions, and what an allow sets off")
    group.add_argument("--audit", metavar="FILE", type=Path, help="record every decision before it counts")
    group.add_argument("--evidence", metavar="KEYFILE", help=f"keep the crops, encrypted; {EVIDENCE_HELP}")
    group.add_argument("--on-allow", metavar="COMMAND", help="run this, without a shell, for every recorded allow")
    group.add_argument(
        "--on-allow-timeout", metavar="S", type=float, default=2.0, help="then it is killed (default 2 s)"
    )
    add_limits(group)


def add_limits(parser: argparse._ActionsContainer) -> None:
    """The flags of retention, for run and for prune."""
    parser.add_argument("--keep-days", metavar="N", type=float, help="forget older records")
    parser.add_argument("--keep-mb", metavar="N", type=float, help="forget the oldest records of a larger file")
    parser.add_argument("--keep-crops-days", metavar="N", type=float, help="forget older crops, and keep their records")


def limits_of(arguments: argparse.Namespace) -> Any:
    """What may be kept, None where nothing was said."""
    from immunogate.runtime.audit.retention import Limits

    given = (arguments.keep_days, arguments.keep_mb, arguments.keep_crops_days)
    return None if given == (None, None, None) else Limits(*given)


def check_audit(arguments: argparse.Namespace) -> None:
    """Refuse flags that ask for something without a record.

    Raises:
        UsageError: they do.
    """
    if arguments.audit is not None:
        return
    for flag in ("evidence", "on_allow", "keep_days", "keep_mb", "keep_crops_days"):
        if getattr(arguments, flag) is not None:
            raise UsageError(f"--{flag.replace('_', '-')} needs --audit FILE", "Nothing is set off without a record")


def opened_settlements(
    stack: ExitStack,
    arguments: argparse.Namespace,
    bundle: Bundle,
    chain: FaceChain,
    policies: Mapping[str, Policy],
    templates: Templates,
) -> dict[str, Settlement | None]:
    """What records the decisions of each camera and sets off the relay, in one record; None without ``--audit``.

    Raises:
        UsageError: a flag is wrong, or there is no key or program of that name.
        AuditError: the record can not be written.
    """
    if arguments.audit is None:
        return dict.fromkeys(policies)
    from immunogate.runtime.audit.context import context_of
    from immunogate.runtime.audit.evidence import key_from
    from immunogate.runtime.audit.log import AuditLog
    from immunogate.runtime.audit.relay import CommandRelay
    from immunogate.runtime.audit.settle import Settlement

    limits = limits_of(arguments)
    key = None if arguments.evidence is None else key_from(arguments.evidence)
    relay = None if arguments.on_allow is None else CommandRelay(arguments.on_allow, arguments.on_allow_timeout)
    audit = stack.enter_context(AuditLog(arguments.audit))
    settlements: dict[str, Settlement | None] = {}
    for name, policy in policies.items():
        context = audit.context(context_of(bundle, chain, policy, templates, arguments.threads))
        settlement = Settlement(audit, context, policy.max_decision_age_ms, relay, key, limits)
        settlement.begin()
        settlements[name] = settlement
    stack.callback(lambda: _say_head(arguments.audit, audit.head))
    return settlements


def _say_head(path: Path, head: tuple[int, bytes]) -> None:
    print(f"audit: {path}, head {head[0]}:{head[1].hex()}", file=sys.stderr)
