"""The command line. One file for each command; what a command needs is imported only when it runs."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from immunogate import __version__
from immunogate.cli import calibrate, demo, doctor, enroll, export, gallery, inspect, run, train, verify
from immunogate.errors import ImmunogateError

COMMANDS = (demo, train, export, verify, inspect, calibrate, enroll, gallery, run, doctor)
INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="immunogate",
        description="A face gate that purifies every face with its own antibody before recognising it.",
        epilog="Exit status: 0 done, 1 a check failed, 2 wrong use. Results go to stdout, everything else to stderr. "
        "Purification is no liveness detection: a photo before the camera passes through it.",
    )
    parser.add_argument("--version", action="version", version=f"immunogate {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and give its exit status; errors of the user become one line on stderr."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if arguments.verbose else logging.WARNING, format="%(levelname)s: %(message)s", force=True
    )
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except ImmunogateError as error:
        print(f"immunogate: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("immunogate: interrupted; nothing was left half written", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; keep the interpreter from complaining once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
