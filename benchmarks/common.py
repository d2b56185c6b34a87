"""What the benchmarks share: the command line, targets and the files they write."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from immunogate.errors import ImmunogateError
from immunogate.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Options:
    """How a benchmark was called.

    Attributes:
        quick: fewer rounds or a smaller problem; for trying out, its figures are not for quoting.
        json: print the document instead of the table.
        out: where the document goes; None writes none.
    """

    quick: bool
    json: bool
    out: Path | None


def parse(name: str, description: str | None, argv: Sequence[str] | None) -> Options:
    """The flags that every benchmark has."""
    parser = argparse.ArgumentParser(prog=name, description=(description or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="small; writes nothing unless --out is given")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")
    parser.add_argument("--out", type=Path, help=f"where to write the JSON (default benchmarks/results/{name}.json)")
    given = parser.parse_args(argv)
    return Options(given.quick, given.json, given.out or (None if given.quick else RESULTS / f"{name}.json"))


@dataclass(frozen=True)
class Target:
    """One promise and what was measured.

    Attributes:
        what: is promised, in words.
        relation: "<=", "<", ">=" or "==".
        limit: of the promise.
        measured: this run's value.
        unit: of both.
    """

    what: str
    relation: str
    limit: float
    measured: float
    unit: str

    @property
    def met(self) -> bool:
        """Whether the promise was kept."""
        limit, measured = self.limit, self.measured
        return {"<=": measured <= limit, "<": measured < limit, ">=": measured >= limit, "==": measured == limit}[
            self.relation
        ]

    def row(self) -> str:
        """As a row of a Markdown table; a promise not kept says by how much."""
        verdict = "met" if self.met else f"missed by {abs(self.measured - self.limit):.3g} {self.unit}"
        return f"| {self.what} | {self.relation} {self.limit:g} {self.unit} | {self.measured:.4g} | {verdict} |"


HEADING = "| what | target | measured | verdict |\n|---|---|---|---|"


def finish(
    name: str, options: Options, before: dict[str, Any], measured: dict[str, Any], targets: list[Target], table: str
) -> int:
    """Print the table or the document, write the document, and give the exit status (0: a missed target is no error).

    Args:
        name: of the benchmark.
        options: how it was called.
        before: from `environment.environment`.
        measured: all figures, plain data.
        targets: promises with their measures.
        table: lines for people.
    """
    document = {
        "benchmark": name,
        "quick": options.quick,
        "environment": before,
        "targets": [{**asdict(target), "met": target.met} for target in targets],
        "measured": measured,
    }
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    if options.json:
        print(text, end="")
    else:
        print(table)
        if targets:
            print("\n" + "\n".join([HEADING, *(target.row() for target in targets)]))
    if options.out is not None:
        write_whole(options.out, lambda path: path.write_text(text, encoding="utf-8"))
        print(f"{options.out}", file=sys.stderr)
    return 0


def guarded(main: Callable[[], int]) -> int:
    """Run a script; an error of the user becomes one line on stderr and the exit status that the command line has."""
    try:
        return main()
    except ImmunogateError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def say(text: str) -> None:
    """A line of progress on stderr."""
    print(f"  {text}", file=sys.stderr, flush=True)
