"""The command line. One file for each command; what a command needs is imported only when it runs."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from immunogate import __version__
from immunogate.cli import (
    audit,
    build,
    bundle,
    calibrate,
    config,
    demo,
    doctor,
    enroll,
    evaluate,
    export,
    gallery,
    inspect,
    models,
    profile,
    replay,
    report,
    run,
    sbom,
    train,
    verify,
)
from immunogate.cli.interrupt import sigterm_as_interrupt
from immunogate.errors import ImmunogateError, MissingExtraError
from immunogate.trust import signatures_required

COMMANDS = (
    demo, models, train, export, build, verify, inspect, bundle, calibrate, evaluate, report, enroll, gallery, config,
    run, audit, replay, profile, doctor, sbom,
)  # fmt: skip
INTERRUPTED = 130
EXTRAS = {"torch": "export", "onnx": "export", "onnxscript": "export", "matplotlib": "train", "skimage": "demo"}
"""Which extra of this project brings an import that a command may miss."""


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
    if sys.stdout is None:  # closed by whoever started us: results go nowhere, and their writers need not care
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (it stays until the process ends)
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if arguments.verbose else logging.WARNING, format="%(levelname)s: %(message)s", force=True
    )
    try:
        with sigterm_as_interrupt(), signatures_required(getattr(arguments, "require_signature", None) or ()):
            status: int = arguments.run(arguments)
            sys.stdout.flush()
    except ImmunogateError as error:
        return _report(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        return _report(MissingExtraError(package, EXTRAS[package]))
    except KeyboardInterrupt:
        print("immunogate: interrupted; nothing was left half written", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone.
        _abandon_stdout()
        return 1
    except OSError as error:  # files are reported by their own errors; what is left is mostly stdout on a full disk
        _abandon_stdout()
        what = f"{error.filename} can not be used" if error.filename else "the output can not be written"
        return _report(ImmunogateError(f"{what}: {error.strerror or error}"))
    return status


def _report(error: ImmunogateError) -> int:
    print(f"immunogate: {error}", file=sys.stderr)
    return error.exit_code


def _abandon_stdout() -> None:
    """Where nothing can be written any more, keep the interpreter from complaining once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
